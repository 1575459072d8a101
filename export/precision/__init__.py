"""Precisions of exported graphs.

A new precision is one file with a `Precision`, and one entry of `PRECISIONS`.
"""

from __future__ import annotations

from seginfer._errors import InputError

from .fp16 import FP16
from .fp32 import FP32
from .precision import Conversion, Precision

__all__ = ["PRECISIONS", "Conversion", "Precision", "find_precision"]

PRECISIONS = {precision.name: precision for precision in (FP32, FP16)}


def find_precision(name: str) -> Precision:
    """Return the precision of a name.

    Raises:
        InputError: if there is no such precision.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return PRECISIONS[name]
