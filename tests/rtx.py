"""TensorRT for RTX as a judge: its ONNX parser and its builder, which need no GPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest


def build(path: Path, *, sizes: tuple[tuple[int, ...], ...] = ()) -> None:
    """Parse an ONNX file and build an engine of it; skip the test where TensorRT for RTX is not installed.

    Args:
        path: the file.
        sizes: smallest, usual and largest shape of every input, where shapes vary.

    Raises:
        AssertionError: if parser or builder refuse, with what they said.
    """
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt_rtx_cu13_bindings is not installed")
    logger = _logger()
    logger.lines.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise AssertionError("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if sizes:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            profile.set_shape(network.get_input(i).name, *sizes)
        config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        raise AssertionError("; ".join(logger.lines) or "no engine, and no reason")


@cache
def _logger() -> Any:
    """Return the one logger of this process: TensorRT keeps the first that it is given."""
    import tensorrt_rtx_bindings as trt

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.lines.append(message)

    return Logger()
