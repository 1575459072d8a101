"""`seginfer check`: parse and build model files with TensorRT."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from .._errors import MissingDependencyError, SegInferError
from .._spec.schema import unstructure
from .._tensorrt import CheckReport, EngineTensor, check
from .output import Output

_EXIT_CODES = {"supported": 0, "unsupported": 1, "needs_plugin": 3}
_ERROR = 2
_MOST_ROWS = 40


def check_files(args: argparse.Namespace, output: Output) -> int:
    """Check model files.

    Exit codes, the first that applies: 2 if a file could not be checked, 1 if one is unsupported, 3 if one needs
    plugins, 0.
    """
    reports: list[CheckReport] = []
    failed: list[tuple[Path, SegInferError]] = []
    for model in args.models:
        try:
            with output.phases() as on_step:
                reports.append(check(model, on_progress=on_step, timeout_s=args.timeout))
        except MissingDependencyError:  # the same for every file
            raise
        except SegInferError as error:
            if len(args.models) == 1:
                raise
            failed.append((model, error))
    data = {
        "reports": [unstructure(report) for report in reports],
        "failed": [{"path": str(path), "error": str(error), "kind": type(error).__name__} for path, error in failed],
    }
    output.result(data, lambda: _show(output, reports, failed))
    return _exit_code(reports, failed)


def _exit_code(reports: Sequence[CheckReport], failed: Sequence[object]) -> int:
    if failed:
        return _ERROR
    statuses = {report.status for report in reports}
    worst = next(status for status in ("unsupported", "needs_plugin", "supported") if status in statuses)
    return _EXIT_CODES[worst]


def _show(output: Output, reports: Sequence[CheckReport], failed: Sequence[tuple[Path, SegInferError]]) -> None:
    for report in reports:
        _show_one(output, report)
    for path, error in failed:
        output.say(f"{path}: not checked: {error}")


def _show_one(output: Output, report: CheckReport) -> None:
    output.table(report.path, ("", "value"), _rows(report))
    tensors = [("input", *_cells(tensor)) for tensor in report.inputs]
    tensors += [("output", *_cells(tensor)) for tensor in report.outputs]
    if tensors:
        output.table("tensors", ("", "name", "shape", "dtype", "built for"), tensors)
    if report.problems:
        rows = [(p.name, p.op, p.reason) for p in report.problems]
        output.table("rejected nodes", ("node", "operator", "reason"), rows[:_MOST_ROWS])
        if len(rows) > _MOST_ROWS:
            output.say(f"and {len(rows) - _MOST_ROWS} more; --json lists all")
    output.say(report.summary())


def _rows(report: CheckReport) -> list[tuple[str, object]]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kernel_kinds.items())
    rows: list[tuple[str, object]] = [
        ("verdict", report.status.replace("_", " ")),
        ("checked by", f"{report.library} {report.version}"),
        ("nodes", report.nodes),
    ]
    if report.layers is not None:
        rows.append(("layers parsed", report.layers))
    if report.build_s is not None and report.engine_bytes is not None:
        rows += [
            ("kernels", "unknown" if report.kernels is None else f"{report.kernels} ({kinds})"),
            ("precision", precisions_text(report.precisions) or "unknown"),
            ("build time", f"{report.build_s:.2f} s"),
            ("engine size", mb(report.engine_bytes)),
        ]
    return rows


def _cells(tensor: EngineTensor) -> tuple[str, str, str, str]:
    ranges = [shape_text(shape) for shape in (tensor.min, tensor.opt, tensor.max) if shape]
    return tensor.name, shape_text(tensor.shape), tensor.dtype, ", ".join(ranges)


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape, such as "1 x 3 x ? x ?"."""
    return " x ".join("?" if size < 0 else str(size) for size in shape)


def precisions_text(precisions: Mapping[str, int]) -> str:
    """Format kernel counts such as "31 kernels in float16"."""
    return ", ".join(f"{count} kernel{'s' * (count > 1)} in {dtype}" for dtype, count in precisions.items())


def mb(size: int) -> str:
    """Format a number of bytes, such as "3.4 MB"."""
    return f"{size / 1e6:.1f} MB"
