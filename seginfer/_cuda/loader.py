"""Load kernels when they are first needed."""

from __future__ import annotations

import logging
import threading
from typing import Any

from .._errors import BackendUnavailableError
from .compiler import cubins
from .errors import join_lines
from .recording import making

_log = logging.getLogger("seginfer")


class Loader:
    """Kernels of one GPU. Several threads may use it at once.

    Args:
        core: the module `cuda.core`.
        architecture: name of the architecture, such as "sm_87".
    """

    def __init__(self, core: Any, architecture: str) -> None:
        self._core, self._architecture = core, architecture
        self._lock = threading.Lock()
        self._kernels: dict[str, Any] = {}
        self._codes: dict[bytes, Any] = {}  # a shipped cubin has every kernel

    def get(self, kernel: str) -> Any:
        """Return a kernel, which is loaded once.

        Args:
            kernel: a name of `KERNELS`.

        Raises:
            BackendUnavailableError: if NVRTC does not compile it, or the driver does not load it.
        """
        if (found := self._kernels.get(kernel)) is not None:
            return found
        # In this order: a thread that has its turn may wait for the lock, and none that has the lock for a turn.
        with making(), self._lock:
            if kernel not in self._kernels:
                self._kernels[kernel] = self._load(kernel)
            return self._kernels[kernel]

    def _load(self, kernel: str) -> Any:
        """Load the first cubin that the driver accepts."""
        # A driver for CUDA 12 rejects cubins of NVRTC 13.
        refusal = f"there is no {kernel} for {self._architecture}"
        for origin, cubin in cubins(self._architecture, kernel):
            try:
                code = self._codes.get(cubin) or self._core.ObjectCode.from_cubin(cubin)
                loaded = code.get_kernel(kernel)
            except Exception as error:  # cuda-core raises types of its own, of several parents
                refusal = join_lines(error)
                _log.info("the driver does not load %s from %s: %s", kernel, origin, refusal)
            else:
                self._codes[cubin] = code
                return loaded
        raise BackendUnavailableError(
            f"the driver does not load {kernel}: {refusal}; see `seginfer doctor`, or run on the CPU"
        )

    def close(self) -> None:
        """Forget all kernels, so that the driver unloads them."""
        with self._lock:
            self._kernels.clear()
            self._codes.clear()
