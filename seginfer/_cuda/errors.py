"""What the driver refuses, as errors with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import BackendError, SegInferError

_MIB = 1 << 20


class GpuMemoryError(BackendError):
    """Memory ran out; what was being made is freed, and smaller work still runs."""


@contextmanager
def translate_errors(doing: str, nbytes: int = 0, memory: str = "GPU memory") -> Iterator[None]:
    """Turn what cuda-core raises into errors with a remedy.

    Args:
        doing: what is being done, as in "loading kernels".
        nbytes: how much memory that needs.
        memory: which memory it needs.

    Raises:
        GpuMemoryError: if memory ran out.
        BackendError: if anything else failed; whether the GPU can be used afterwards is not known.
    """
    try:
        yield
    except SegInferError:
        raise
    except Exception as error:  # cuda-core raises types of its own, of several parents
        if isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error):
            wanted = f", {nbytes / _MIB:.1f} MiB wanted" if nbytes else ""
            raise GpuMemoryError(
                f"{memory} ran out while {doing}{wanted}; close other models and programs, or take smaller images or "
                "fewer at once"
            ) from error
        raise BackendError(f"the GPU failed while {doing}: {join_lines(error)}; restart the process") from error


def join_lines(error: BaseException) -> str:
    """Return an error's text without line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
