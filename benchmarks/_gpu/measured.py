"""Numbers of one CUDA kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _errors import CheckError
from numpy.typing import NDArray

from seginfer._cuda import kernel_args

Array = NDArray[Any]
Record = dict[str, Any]
GOAL = 0.7
"""Share of the copy bandwidth that every kernel should reach."""


class Measured(NamedTuple):
    """Bytes and time of a kernel."""

    name: str
    moved_bytes: int
    time_ms: float

    def record(self, copy_gb_per_s: float) -> Record:
        """Return the numbers, and their share of the copy bandwidth."""
        rate = self.moved_bytes / self.time_ms / 1e6
        share = rate / copy_gb_per_s
        shares = {"gb_per_s": round(rate, 1), "share_of_copy": round(share, 3)}
        return {**self._asdict(), **shares, "goal": GOAL, "is_met": share >= GOAL}


def check_same(found: Array, expected: Array, what: str) -> None:
    """Raise if two arrays differ."""
    found_bytes, expected_bytes = (np.frombuffer(array.tobytes(), np.uint8) for array in (found, expected))
    different = int((found_bytes != expected_bytes).sum())
    if different:
        raise CheckError(f"{what}: {different} of {found_bytes.size} bytes of the GPU differ from the CPU's")


def describe(kernel: Record) -> str:
    """Return the record of a kernel in words."""
    if "time_ms" in kernel:
        return f"{kernel['time_ms']:.3f} ms, {kernel['share_of_copy']:.0%} of copy"
    return f"WRONG, {kernel['wrong']}" if "wrong" in kernel else f"FAILED, {kernel['failed']}"


def overlay_records(
    image_hw: tuple[int, int], images: Sequence[Any], masks: Sequence[Any], outs: Sequence[Any]
) -> Array:
    """Return arguments of the overlay kernel for contiguous buffers."""
    records = np.zeros(len(outs), kernel_args.OVERLAY)
    records["height"], records["width"] = image_hw
    records["channels"], records["mask_bytes"] = 3, 1
    records["row_bytes"] = records["out_row_bytes"] = 3 * image_hw[1]
    records["mask_row_stride"] = image_hw[1]
    for name, buffers in (("pixels", images), ("mask", masks), ("out", outs)):
        records[name] = [int(buffer.handle) for buffer in buffers]
    return records
