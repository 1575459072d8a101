"""Translate CUDA errors into BackendError with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import BackendError, SegInferError

_MIB = 1 << 20


class GpuMemoryError(BackendError):
    """Memory ran out.

    The unfinished object was freed. The GPU is still usable for smaller work.
    """


@contextmanager
def translate_errors(doing: str, nbytes: int = 0, memory: str = "GPU memory") -> Iterator[None]:
    """Translate errors of cuda-core into errors with a remedy.

    Args:
        doing: description of the work, such as "loading kernels".
        nbytes: bytes of memory that the work needs.
        memory: kind of memory.

    Raises:
        GpuMemoryError: if memory ran out.
        BackendError: if anything else failed. The GPU may be unusable afterwards.
    """
    try:
        yield
    except SegInferError:
        raise
    except Exception as error:  # cuda-core raises types of its own, of several parents
        if isinstance(error, MemoryError) or "OUT_OF_MEMORY" in str(error):
            requested = f", {nbytes / _MIB:.1f} MiB requested" if nbytes else ""
            raise GpuMemoryError(
                f"{memory} ran out while {doing}{requested}; close other models and programs, or take smaller images "
                "or fewer at once"
            ) from error
        raise BackendError(f"the GPU failed while {doing}: {join_lines(error)}; restart the process") from error


def join_lines(error: BaseException) -> str:
    """Return the text of an error in one line, or its type."""
    return " ".join(str(error).split()) or type(error).__name__
