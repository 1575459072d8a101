"""seginfer: run a segmentation model on a device and get masks in the camera's own pixels.

    from seginfer import Segmenter

    with Segmenter.open("pitch.onnx", color="bgr") as segmenter:
        result = segmenter(frame)          # uint8 (H, W, 3)
        result.mask                        # uint8 (H, W), class ids at the frame's own size

Models come from `seginfer.export.export_onnx`, or from anybody: `seginfer attach` puts a ModelSpec into an ONNX file.
"""

from ._certificate import Certificate, ParityError
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
from ._geometry import Geometry, Rect
from ._model_file import ModelFile, attach_spec, read_model
from ._postprocess import confidence, postprocess
from ._preprocess import preprocess
from ._segmentation import Polygon, Segmentation, Timings
from ._segmenter import Segmenter, Trace
from ._spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance
from ._version import __version__
from .backends import Backend, open_backend

__all__ = [
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Certificate",
    "ClassSpec",
    "ExportError",
    "Geometry",
    "InputError",
    "InputSpec",
    "MissingDependencyError",
    "MissingFileError",
    "ModelFile",
    "ModelFileError",
    "ModelSpec",
    "OutputSpec",
    "OutputWriteError",
    "ParityError",
    "Polygon",
    "Provenance",
    "Rect",
    "SegInferError",
    "Segmentation",
    "Segmenter",
    "SpecError",
    "Timings",
    "Trace",
    "WeightsError",
    "__version__",
    "attach_spec",
    "confidence",
    "open_backend",
    "postprocess",
    "preprocess",
    "read_model",
]
