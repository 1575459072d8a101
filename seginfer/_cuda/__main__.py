"""Compile the kernels for every architecture.

Run this before a wheel is built: pip install '.[release]', python -m seginfer._cuda [FOLDER].
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .._errors import BackendUnavailableError, SegInferError
from .._system.atomic import make_folder
from . import compiler
from .fit import cuda_major

ONLY_CUDA_13 = ("sm_110",)
"""Architectures that no NVRTC 12 supports. Drivers for CUDA 12 load the cubins of all others."""


def main(arguments: list[str] | None = None) -> int:
    """Write a cubin per architecture into a folder.

    Cubins of older kernels are removed.
    """
    parser = argparse.ArgumentParser(prog="python -m seginfer._cuda", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=compiler.SHIPPED, help="default: inside the package")
    folder = parser.parse_args(arguments).folder
    try:
        make_folder(folder)
        written = {_write(folder, architecture) for architecture in compiler.ARCHITECTURES}
    except SegInferError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in set(folder.glob("*.cubin")) - written:
        path.unlink()
    return 0


def _write(folder: Path, architecture: str) -> Path:
    start = time.perf_counter()
    origin, cubin = next(compiler.compile_cubins(architecture))
    if cuda_major(cubin) > 12 and architecture not in ONLY_CUDA_13:
        raise BackendUnavailableError(
            f"expected kernels for {architecture} from NVRTC 12.9, got them from {origin}, and drivers for CUDA 12 do "
            "not load those; pip install 'seginfer[release]'"
        )
    path = compiler.write_cubin(folder, architecture, cubin)
    size, seconds = path.stat().st_size / 1024, time.perf_counter() - start
    sys.stdout.write(f"{path.name}: {size:.0f} KiB, {seconds:.1f} s, {origin}\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
