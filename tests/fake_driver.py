"""NVIDIA's driver as a small C library: what a process sees that finds it in place of the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Unset, a macro is that of a machine with one GPU and a driver for CUDA 13.0.
_SOURCE = r"""
#include <stddef.h>
#include <string.h>
#ifndef INIT
#define INIT 0
#endif
#ifndef GPUS
#define GPUS 1
#endif
#ifndef VERSION
#define VERSION 13000
#endif
#ifndef NAME_FAILS
#define NAME_FAILS 0
#endif
#ifndef FOREIGN
int cuInit(unsigned flags) { return INIT + 0 * (int)flags; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index < GPUS ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, device ? "Second GPU" : "First GPU", (size_t)length);
  return NAME_FAILS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = ((size_t)8 << 30) * (size_t)(device + 1); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 6 + 3 * device : attribute == 16 ? 16 >> device : -1;
  return 0;
}
#endif
"""


def install(folder: Path, **macros: int) -> dict[str, str]:
    """Compile a driver into a folder, and return the environment of a process that loads it; skip without a compiler.

    Args:
        folder: an empty one.
        macros: what differs from a healthy machine, see the source.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to make a driver with")
    source = folder / "driver.c"
    source.write_text(_SOURCE)
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", *defines, str(source), "-o", str(library)], check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(folder)}


def run(environment: dict[str, str], code: str) -> str:
    """Run Python code in a process with this environment, and return what it printed."""
    here = [str(Path(__file__).parent), *sys.path]
    code = f"import sys; sys.path[:] = {here!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
