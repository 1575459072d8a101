"""NVIDIA's parser and builder as a judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from seginfer import MissingDependencyError
from seginfer._files.onnx_file import read_nodes
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.library import find_library
from seginfer.export import check_tensorrt

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def missing() -> str:
    """Return why there is no TensorRT for RTX without a GPU, which many tests expect the words and counts of."""
    try:
        library = find_library()
    except MissingDependencyError as error:
        return str(error)
    return f"{library.description} builds more where there is a GPU" if has_gpu() else ""


needs_rtx = pytest.mark.skipif(bool(missing()), reason=missing() or "TensorRT for RTX is there")


def build(path: Path) -> None:
    """Fail with what the library said unless it builds an engine of a file, of the file's own precisions; or skip.

    Raises:
        AssertionError: if parser or builder refuse, or the engine is not what the file asks for.
    """
    try:
        report = check_tensorrt(path)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert report.status == "supported", report.summary()
    has_weights = any(node.op in _WEIGHTED for node in read_nodes(path))
    assert report.precisions or not has_weights, "what was built was not read back"
