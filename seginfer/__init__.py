"""seginfer: run a segmentation model on a device and get masks in the camera's own pixels.

    from seginfer import Segmenter

    with Segmenter.open("pitch.onnx", color="bgr") as segmenter:
        result = segmenter(frame)          # uint8 (H, W, 3)
        result.mask                        # uint8 (H, W), class ids at the frame's own size

Models come from `seginfer.export.export_onnx`, or from anybody: `seginfer attach` puts a ModelSpec into an ONNX file.
"""

from ._errors import (
    BackendError,
    BackendUnavailableError,
    ExportError,
    InputError,
    MissingDependencyError,
    MissingFileError,
    ModelFileError,
    OutputWriteError,
    SegInferError,
    SpecError,
    WeightsError,
)
from ._files.model_file import attach_spec, read_model
from ._geometry.geometry import Geometry
from ._inputs.preprocess import preprocess
from ._segmenter import Segmenter
from ._spec.certificate import Certificate, ParityError
from ._spec.model_spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, UpsampleSpec
from ._tasks.dense.postprocess import confidence, margin, postprocess
from ._tasks.segmentation import Segmentation
from ._tasks.timings import Timings
from ._tensorrt.engine_file import EngineFile, read_engine
from ._tensorrt.engines import build_engine
from ._tensorrt.options import EngineOptions, EngineProfile
from ._version import __version__
from .backends import open_backend
from .backends._protocol import Backend

__all__ = [
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Certificate",
    "ClassSpec",
    "EngineFile",
    "EngineOptions",
    "EngineProfile",
    "ExportError",
    "Geometry",
    "InputError",
    "InputSpec",
    "MissingDependencyError",
    "MissingFileError",
    "ModelFileError",
    "ModelSpec",
    "OutputSpec",
    "OutputWriteError",
    "ParityError",
    "SegInferError",
    "Segmentation",
    "Segmenter",
    "SpecError",
    "Timings",
    "UpsampleSpec",
    "WeightsError",
    "__version__",
    "attach_spec",
    "build_engine",
    "confidence",
    "margin",
    "open_backend",
    "postprocess",
    "preprocess",
    "read_engine",
    "read_model",
]
