"""Build, verify and cache TensorRT engines.

TensorRT and TensorRT for RTX share one API. `engines` looks an engine up in the cache or builds it. `isolated` runs
`worker` in a process of its own, because NVIDIA's libraries crash on some malformed files. There `make` joins `parse`,
`build`, `inspect` and `verify`.
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
