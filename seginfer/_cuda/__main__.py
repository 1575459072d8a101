"""Compile the kernels for every architecture.

Run this before a wheel is built: python -m seginfer._cuda [FOLDER].
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .._errors import SegInferError
from .._system.atomic import make_folder
from . import compiler


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
    path = compiler.write_cubin(folder, architecture, compiler.compile_cubin(architecture))
    sys.stdout.write(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {time.perf_counter() - start:.1f} s\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
