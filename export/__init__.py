"""Export of PyTorch modules to certified .onnx files.

Needs `pip install 'seginfer[export]'`:

    from seginfer.export import export_onnx

    certificate = export_onnx(model, spec, "pitch.onnx", images=[...])
"""

from seginfer._tensorrt import CheckReport, EngineTensor, NodeProblem
from seginfer._tensorrt import check as check_tensorrt

try:
    from ._onnx import export_onnx
    from ._sources import Source, load_source
    from ._weights import load_weights, weights_sha256
    from .parity.certify import certify
except ImportError as error:
    from seginfer._errors import MissingDependencyError

    raise MissingDependencyError(
        f"seginfer.export needs {error.name or 'PyTorch'}, which is not importable ({error}); "
        "pip install 'seginfer[export]'"
    ) from error

__all__ = [
    "CheckReport",
    "EngineTensor",
    "NodeProblem",
    "Source",
    "certify",
    "check_tensorrt",
    "export_onnx",
    "load_source",
    "load_weights",
    "weights_sha256",
]
