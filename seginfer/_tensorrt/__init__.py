"""TensorRT and TensorRT for RTX, which share one API: find it, parse an ONNX file, build an engine, report on both.

`_library` → `_parse` → `_build` are what an engine builder needs; `_check` makes a report of them, and `_isolated`
runs it in a process of its own, because NVIDIA's libraries crash on some malformed files.
"""

from ._isolated import check
from ._report import CheckReport, EngineTensor, NodeProblem

__all__ = ["CheckReport", "EngineTensor", "NodeProblem", "check"]
