"""`seginfer build`: build a verified TensorRT engine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .._errors import InputError
from .._spec.schema import unstructure
from .._system.environment import parse_device
from .._tensorrt import EngineOptions, EngineProfile, EngineReport, ShapeRange
from .._tensorrt.engine_file import EngineFile
from .._tensorrt.engines import build_engine
from .check import mb, precisions_text, shape_text
from .output import Output

_RANGE = ("min", "opt", "max")


def build(args: argparse.Namespace, output: Output) -> int:
    """Build or find an engine, and show its report."""
    with output.phases() as on_step:
        engine = build_engine(
            args.model,
            args.output,
            options=_options(args),
            device_id=_device_id(args.device),
            rebuild=args.rebuild,
            on_progress=on_step,
        )
    output.result(engine_data(engine), lambda: show_engine(output, engine))
    return 0


def _options(args: argparse.Namespace) -> EngineOptions:
    sizes = args.size or [None]
    profiles = (
        EngineProfile(batch, None if size is None else (size, size, size)) for batch in args.batch for size in sizes
    )
    return EngineOptions(
        library=args.library,
        profiles=tuple(profiles),
        workspace_mb=args.workspace_mb,
        optimization_level=args.optimization_level,
        max_aux_streams=args.max_aux_streams,
        dla_core=args.dla_core,
        cuda_graph=args.cuda_graph,
    )


def _device_id(device: str) -> int:
    kind, index = parse_device(device)
    if kind == "cpu":
        raise InputError("engines are built for GPUs, got --device cpu; use cuda or cuda:INDEX")
    return index


def engine_data(engine: EngineFile) -> dict[str, Any]:
    """Return the sidecar of an engine as JSON values."""
    return {**unstructure(engine), "path": str(engine.path)}


def show_engine(output: Output, engine: EngineFile) -> None:
    """Print the report of an engine."""
    output.table(str(engine.path), ("", "value"), _rows(engine))
    report = engine.report
    output.table("input shapes", ("profile", *_RANGE), _profile_rows(report.profiles))
    tensors = [("input", t.name, shape_text(t.shape), t.dtype) for t in report.inputs]
    tensors += [("output", t.name, shape_text(t.shape), t.dtype) for t in report.outputs]
    output.table("tensors", ("", "name", "shape", "dtype"), tensors)


def _profile_rows(profiles: Sequence[ShapeRange]) -> list[tuple[str, ...]]:
    return [(str(i), *(shape_text(getattr(profile, name)) for name in _RANGE)) for i, profile in enumerate(profiles, 1)]


def _rows(engine: EngineFile) -> list[tuple[str, object]]:
    report, gpu = engine.report, engine.key.gpu
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kernel_kinds.items())
    per = f" in {len(report.profiles)} profiles" if len(report.profiles) > 1 else ""
    return [
        ("built by", f"{report.library} {report.version}"),
        ("built for", str(gpu) if gpu else f"every GPU that {report.library} supports"),
        ("precision", _precisions(report)),
        ("kernels", "unknown" if report.kernels is None else f"{report.kernels}{per} ({kinds})"),
        ("verified by", _evidence(report)),
        ("weights on the GPU", "unknown" if report.weights_bytes is None else mb(report.weights_bytes)),
        ("activations", "unknown" if report.activation_bytes is None else f"{mb(report.activation_bytes)} per context"),
        ("engine size", mb(report.engine_bytes)),
        ("build time", f"{report.build_s:.2f} s"),
    ]


def _precisions(report: EngineReport) -> str:
    """Format counts of kernels with weights by data type."""
    if not report.is_verified:
        return "unknown: the library does not report it"
    return precisions_text(report.precisions) or "no kernels with weights found"


def _evidence(report: EngineReport) -> str:
    if not report.is_verified:
        return "not verified"
    return "reading the engine back" if report.evidence == "engine" else "the builder's list of layers"
