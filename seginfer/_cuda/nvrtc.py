"""NVRTC, NVIDIA's runtime compiler. Several versions can be installed side by side."""

# The library is called directly. cuda-bindings reach only the NVRTC of their own CUDA version, and a release compiles
# with two of them.

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

_NAMES = ("libnvrtc.so.12", "libnvrtc.so.13")
_LOG = ("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")


class NvrtcError(Exception):
    """A call of NVRTC failed. The message has the compiler's log."""


class Nvrtc:
    """One NVRTC library.

    Args:
        path: its file, or a name for the loader.

    Raises:
        OSError: if it cannot be loaded.
        NvrtcError: if it does not answer.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value
        with suppress(OSError):  # NVRTC 13 finds this file in its own folder only once it is loaded
            self._builtins = ctypes.CDLL(str(Path(path).with_name("libnvrtc-builtins.so.{}.{}".format(*self.version))))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        self.architectures = frozenset(f"sm_{number}" for number in numbers)

    def __str__(self) -> str:
        return f"NVRTC {self.version[0]}.{self.version[1]}"

    def compile(self, source: str, options: Sequence[str], kind: str = "CUBIN") -> bytes:
        """Compile a source file.

        Args:
            source: its text.
            options: NVRTC's own, such as "--gpu-architecture=sm_87".
            kind: "CUBIN" or "PTX".

        Raises:
            NvrtcError: if NVRTC rejects the source or an option.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"seginfer_kernels", 0, None, None)
        try:
            words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            try:
                self._call("nvrtcCompileProgram", program, len(options), words)
            except NvrtcError as error:
                log = self._bytes(program, *_LOG).rstrip(b"\0").decode(errors="replace")
                raise NvrtcError(f"{error}: {' '.join(log.split())}") from error
            return self._bytes(program, f"nvrtcGet{kind}Size", f"nvrtcGet{kind}")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, ask_size: str, ask: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(ask_size, program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(ask, program, content)
        return content.raw

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise NvrtcError(f"{name}: {self._library.nvrtcGetErrorString(code).decode()}")


@cache
def find_nvrtcs() -> tuple[Nvrtc, ...]:
    """Return one library per major version, oldest first. Cached for the process."""
    return tuple(found for name in _NAMES if (found := _load(name)))


def _load(name: str) -> Nvrtc | None:
    for path in _paths(name):
        with suppress(OSError, AttributeError, NvrtcError):  # the next one may work
            return Nvrtc(path)
    return None


def _paths(name: str) -> Iterator[str]:
    """Yield the places of a library: NVIDIA's Python packages, Conda, the loader's, the CUDA toolkit."""
    for folder in map(Path, sys.path):
        yield from map(str, sorted(folder.glob(f"nvidia/*/lib/{name}")))
    toolkit = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    yield from (str(Path(sys.prefix, "lib", name)), name, str(Path(toolkit, "lib64", name)))
