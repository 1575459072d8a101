"""Run segmentation models on devices, with masks at the size of the image.

    from seginfer import Segmenter

    with Segmenter.open("pitch.onnx", color="bgr") as segmenter:
        result = segmenter(frame)  # uint8 (H, W, 3)
        result.mask                # uint8 (H, W), class ids at the size of the frame

`seginfer.export.export_onnx` makes model files. `seginfer attach` adds a ModelSpec to any other .onnx file.
"""

from ._cuda.errors import GpuMemoryError
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
from ._files.model_file import ModelFile, attach_spec, read_model
from ._files.onnx_file import OnnxFile
from ._geometry.axis import Axis
from ._geometry.geometry import Geometry, Rect, Tile
from ._inputs.convert import HasArray, HasCudaArray, HasDLPack, ImageLike, MaskLike
from ._inputs.formats import YuvFormat
from ._inputs.preprocess import preprocess
from ._pipelines.pipeline import Trace
from ._segmenter import Segmenter
from ._spec.certificate import Certificate, FlipCount, ImageRecord, ParityError
from ._spec.model_spec import ClassSpec, InputSpec, ModelSpec, OutputSpec, Provenance, UpsampleSpec
from ._spec.tensor_info import TensorInfo
from ._tasks.dense.postprocess import confidence, margin, postprocess
from ._tasks.regions import Polygon
from ._tasks.segmentation import Segmentation
from ._tasks.timings import Timings
from ._tensorrt.build import BuildError, BuildStep
from ._tensorrt.engine_file import EngineFile, read_engine
from ._tensorrt.engines import build_engine
from ._tensorrt.key import EngineGpu, EngineKey
from ._tensorrt.options import EngineOptions, EngineProfile
from ._tensorrt.report import EngineReport, EngineTensor, ShapeRange
from ._version import __version__
from .backends import open_backend
from .backends._protocol import Backend

__all__ = [
    "Axis",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "BuildError",
    "BuildStep",
    "Certificate",
    "ClassSpec",
    "EngineFile",
    "EngineGpu",
    "EngineKey",
    "EngineOptions",
    "EngineProfile",
    "EngineReport",
    "EngineTensor",
    "ExportError",
    "FlipCount",
    "Geometry",
    "GpuMemoryError",
    "HasArray",
    "HasCudaArray",
    "HasDLPack",
    "ImageLike",
    "ImageRecord",
    "InputError",
    "InputSpec",
    "MaskLike",
    "MissingDependencyError",
    "MissingFileError",
    "ModelFile",
    "ModelFileError",
    "ModelSpec",
    "OnnxFile",
    "OutputSpec",
    "OutputWriteError",
    "ParityError",
    "Polygon",
    "Provenance",
    "Rect",
    "SegInferError",
    "Segmentation",
    "Segmenter",
    "ShapeRange",
    "SpecError",
    "TensorInfo",
    "Tile",
    "Timings",
    "Trace",
    "UpsampleSpec",
    "WeightsError",
    "YuvFormat",
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
