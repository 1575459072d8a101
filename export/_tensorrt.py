"""check_tensorrt(): what NVIDIA's own parser and builder make of an exported file."""

from __future__ import annotations

from seginfer._tensorrt import CheckReport
from seginfer._tensorrt import check as check_tensorrt

__all__ = ["CheckReport", "check_tensorrt"]
