"""Kernel arguments as NumPy record types.

Fields, offsets and numbers equal those of the structs in cpp_bindings/.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Source(IntEnum):
    """Memory layout of an image."""

    PACKED3 = 0
    PACKED4 = 1
    GRAY = 2
    YUV = 3


class Filter(IntEnum):
    """Combination of source samples into one."""

    PICK = 0
    WEIGHTED = 1
    OPENCV = 2
    PILLOW = 3


class DType(IntEnum):
    """Data type of a tensor."""

    FLOAT32 = 0
    FLOAT16 = 1
    UINT8 = 2
    INT32 = 3
    INT64 = 4


class Confidence(IntEnum):
    """Source of a confidence value."""

    SOFTMAX = 0
    SIGMOID_OF_LABEL = 1
    SIGMOID = 2
    VALUE = 3
    VALUE_OF_LABEL = 4


NOT_FINITE, NO_CLASS = 1, 2
"""Values that a mask kernel writes to `faults`."""

BLOCK = (32, 8, 1)
"""Threads of a block."""
GATHER_TILE = (32, 32)
"""Output columns and rows per block. Likewise below."""
FILTER_TILE = (32, 16)
MASK_TILE = (128, 32)
OVERLAY_TILE = (128, 8)
MAP_TILE = (32, 32)


def _record(*groups: tuple[str, Sequence[str]]) -> np.dtype[Any]:
    """Return a record type from groups of (kind, field names).

    Kinds: "p" pointer, "q" int64, "i" int32, "f" float32, "3i" three int32, "6i" six, "3f" three float32.
    """
    formats = {
        "p": np.uint64,
        "q": np.int64,
        "i": np.int32,
        "f": np.float32,
        "3i": (np.int32, 3),
        "6i": (np.int32, 6),
        "3f": (np.float32, 3),
    }
    return np.dtype([(name, formats[kind]) for kind, names in groups for name in names], align=True)


PREPROCESS = _record(
    ("p", ["pixels"]),
    ("q", ["row_bytes"]),
    ("p", ["u", "v"]),
    ("q", ["chroma_row_bytes"]),
    ("p", ["row_index", "col_index", "row_weight", "col_weight", "out"]),
    ("i", ["channel_stride", "row_stride", "column_stride"]),
    ("i", ["source", "filter", "row_taps", "col_taps", "top", "left", "content_height", "content_width"]),
    ("i", ["height", "width", "channels", "value_bytes"]),
    ("3i", ["order"]),
    ("3f", ["gain", "bias", "padding"]),
    ("i", ["luma_step", "chroma_step", "chroma_shift"]),
    ("6i", ["yuv"]),
)

MASK = _record(
    ("p", ["logits", "row_index", "row_weight", "row_run", "col_index", "col_weight", "col_run", "table", "mask"]),
    ("p", ["confidence", "margin", "faults"]),
    ("q", ["mask_row_stride", "confidence_row_stride", "margin_row_stride"]),
    ("i", ["plane_stride", "row_stride", "column_stride", "kind", "classes", "height", "width", "taps"]),
    ("i", ["rows", "cols", "mask_bytes", "is_threshold"]),
    ("f", ["threshold"]),
    ("i", ["confidence_kind"]),
)

OVERLAY = _record(
    ("p", ["pixels"]),
    ("q", ["row_bytes"]),
    ("p", ["mask"]),
    ("q", ["mask_row_stride"]),
    ("p", ["palette", "out"]),
    ("q", ["out_row_bytes"]),
    ("i", ["height", "width", "channels", "mask_bytes", "classes"]),
)

PALETTE_ENTRY = np.dtype([("factor", np.uint16), ("color", np.uint16, 3)])


def grid(tile: tuple[int, int], heights: NDArray[Any], widths: NDArray[Any]) -> tuple[int, int, int]:
    """Return the grid that covers outputs of these sizes. `Step` splits one that is too deep."""
    # A grid has at least one block. Kernels skip positions outside of their output.
    return max(1, -(-int(widths.max()) // tile[0])), max(1, -(-int(heights.max()) // tile[1])), len(heights)
