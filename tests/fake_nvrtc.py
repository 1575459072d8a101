"""NVRTC as a small C library: its answers, and cubins that are a header and no more."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from seginfer._cuda import nvrtc

# Compiles for the architectures in ARCHS. FAILS is the result of every compilation.
_SOURCE = r"""
#include <stddef.h>
#include <string.h>
static const int archs[] = {ARCHS};
const char *nvrtcGetErrorString(int code) { return code ? "A FAILURE" : "SUCCESS"; }
int nvrtcVersion(int *major, int *minor) { *major = MAJOR; *minor = MINOR; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = sizeof archs / sizeof *archs; return 0; }
int nvrtcGetSupportedArchs(int *out) { memcpy(out, archs, sizeof archs); return 0; }
int nvrtcCreateProgram(void **program) { *program = (void *)archs; return 0; }
int nvrtcDestroyProgram(void **program) { *program = NULL; return 0; }
int nvrtcCompileProgram(void) { return FAILS; }
int nvrtcGetProgramLogSize(void *program, size_t *size) { *size = 10; return 0; }
int nvrtcGetProgramLog(void *program, char *log) { memcpy(log, "a mistake", 10); return 0; }
int nvrtcGetCUBINSize(void *program, size_t *size) { *size = 64; return 0; }
int nvrtcGetCUBIN(void *program, char *cubin) {
  memset(cubin, 0, 64);
  memcpy(cubin, MAJOR > 12 ? "\x7f" "ELF\2\1\1\x41\x8" : "\x7f" "ELF\2\1\1\x33\x7", 9);
  return 0;
}
"""

KNOWN = {12: (80, 86, 87, 89, 90, 100, 103, 120, 121), 13: (80, 86, 87, 89, 90, 100, 103, 110, 120, 121)}
"""Of 12.9 and 13.0."""


def install(folder: Path, major: int, known: tuple[int, ...] = (), fails: int = 0) -> None:
    """Compile an NVRTC to where its wheel has it; skip without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make an NVRTC with")
    library = folder / "nvidia" / {12: "cuda_nvrtc", 13: "cu13"}[major] / "lib" / f"libnvrtc.so.{major}"
    library.parent.mkdir(parents=True)
    values = {
        "MAJOR": major,
        "MINOR": {12: 9, 13: 0}[major],
        "FAILS": fails,
        "ARCHS": ",".join(map(str, known or KNOWN[major])),
    }
    defines = [f"-D{name}={value}" for name, value in values.items()]
    command = [compiler, "-shared", "-fPIC", "-w", *defines, "-xc", "-", "-o", str(library)]
    subprocess.run(command, input=_SOURCE, text=True, check=True)


@contextmanager
def installed(folder: Path, *majors: int) -> Iterator[None]:
    """Let the process find these NVRTCs and no others."""
    for major in majors:
        install(folder, major)
    paths = nvrtc._paths
    with pytest.MonkeyPatch.context() as patch:
        # The loader would return what the process has loaded already.
        patch.setattr(nvrtc, "_paths", lambda name: (path for path in paths(name) if path != name))
        patch.setattr(nvrtc, "sys", SimpleNamespace(path=[str(folder)], prefix=str(folder)))
        patch.setenv("CUDA_HOME", str(folder))
        nvrtc.find_nvrtcs.cache_clear()
        try:
            yield
        finally:
            nvrtc.find_nvrtcs.cache_clear()
