"""TensorRT and TensorRT for RTX, which share one API: find it, parse an ONNX file, build an engine, report on both.

`_library` → `_parse` → `_build` → `_readback` → `_verify` are what an engine takes; `_make` joins them, `_check` makes
a report of it, and `_isolated` runs either in a process of its own, because NVIDIA's libraries crash on some malformed
files.
"""

from .build import BuildError, BuildStep
from .isolated import check
from .options import EngineOptions, EngineProfile
from .report import CheckReport, EngineReport, EngineTensor, NodeProblem, ShapeRange

__all__ = [
    "BuildError",
    "BuildStep",
    "CheckReport",
    "EngineOptions",
    "EngineProfile",
    "EngineReport",
    "EngineTensor",
    "NodeProblem",
    "ShapeRange",
    "check",
]
