"""check_tensorrt(): does NVIDIA's own parser and builder take an exported file?"""

from __future__ import annotations

from seginfer._tensorrt import check as check_tensorrt

__all__ = ["check_tensorrt"]
