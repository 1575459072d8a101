"""Capture of modules as torch.export programs."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from seginfer._errors import ExportError
from seginfer._spec.model_spec import ModelSpec
from seginfer.backends.torch import device_of

from ._network import Network, check_outputs

_MAX_BATCH = 1024
_MIN_SIDE, _MAX_SIDE = 32, 16384  # range for torch: networks may fail on fewer pixels
_REMEDY = (
    "avoid Python branches on tensor values, check input.size and input.multiple_of of the spec, "
    "or bind the batch with batch_size=1"
)


def export_program(network: Network, spec: ModelSpec, example: Tensor, batch_size: int | None) -> ExportedProgram:
    """Capture a network as a graph of ATen operators.

    Args:
        network: the wrapped module, in eval mode.
        spec: defines the dimensions that vary.
        example: a batch that the network takes.
        batch_size: bind the graph to this many images. None leaves the batch free.

    Raises:
        ExportError: if PyTorch cannot capture it. The message names the inner module that failed.
    """
    shapes = (_dynamic_shapes(spec, batch_size),)
    failures: list[Exception] = []
    steps: list[int] = []
    with quiet():
        for attempt in _attempts(network, spec, example):
            try:
                program = _export(network, example, shapes, **attempt)
            except Exception as error:  # torch.export raises many kinds, and those of the user's module
                failures.append(error)
                continue
            if batch_size is None and isinstance(_image_shape(program)[0], int):
                raise ExportError(
                    f"the module takes batches of {_image_shape(program)[0]} images only; export with that batch_size"
                )
            found = _unexpected_steps(program, spec)
            if not found:
                return program
            steps = steps or found
    if steps:
        raise ExportError(
            f"the module takes heights and widths in steps of {steps}, but input.multiple_of is "
            f"{spec.input.multiple_of}; set it to {math.lcm(*steps)}, or fix input.size"
        )
    raise export_error(failures[0], failing_module(network, failures[0])) from failures[0]


def _attempts(network: Network, spec: ModelSpec, example: Tensor) -> Iterator[dict[str, Any]]:
    """Yield options of `_export` to try in turn."""
    yield {"is_oblivious": True}
    if spec.input.size is None and _runs_at_another_size(network, spec, example):
        # torch could not prove a condition that holds. It becomes an assertion, which ONNX leaves out.
        yield {"is_oblivious": True, "prefer_deferred_runtime_asserts_over_guards": True}
    yield {"is_oblivious": False}
    # Dynamo reads bytecode instead of running it, and captures some modules that tracing cannot.
    yield {"is_oblivious": True, "strict": True}


def _export(network: Network, example: Tensor, shapes: Any, *, is_oblivious: bool, **options: bool) -> ExportedProgram:
    """Run torch.export.

    `is_oblivious` treats sizes that may be 1 like all others, as torch.onnx does.
    """
    with torch.fx.experimental._config.patch(backed_size_oblivious=is_oblivious):  # type: ignore[attr-defined]
        try:
            return torch.export.export(network, (example,), dynamic_shapes=shapes, **options)  # type: ignore[arg-type]
        except torch._dynamo.exc.UserError as error:  # a .pt2 program has narrower ranges of its own
            try:
                narrower = refine_dynamic_shapes_from_suggested_fixes(error.msg, shapes)
            except Exception:  # the message suggests nothing
                raise error from None
            return torch.export.export(network, (example,), dynamic_shapes=narrower, **options)  # type: ignore[arg-type]


def _unexpected_steps(program: ExportedProgram, spec: ModelSpec) -> list[int]:
    """Return a program's steps of height and width if they contradict the spec."""
    shape = _image_shape(program)
    sides = shape[2:] if spec.input.layout == "NCHW" else shape[1:3]
    if spec.input.size is not None:
        return []
    steps = [side if isinstance(side, int) else int(side.node.expr.as_coeff_Mul()[0]) for side in sides]
    return steps if any(step != spec.input.multiple_of for step in steps) else []


def _image_shape(program: ExportedProgram) -> Any:
    """Return the shape of a program's input. Dynamic sizes are symbolic."""
    image = next(node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    return image.meta["val"].shape


def _runs_at_another_size(network: Network, spec: ModelSpec, example: Tensor) -> bool:
    """Return whether the module takes a size one step larger."""
    first = 2 if spec.input.layout == "NCHW" else 1
    shape = list(example.shape)
    for axis in (first, first + 1):
        shape[axis] += spec.input.multiple_of
    try:
        with torch.inference_mode():
            check_outputs(network, spec, example.new_zeros(shape))
    except ExportError:
        return False
    return True


def example_batch(
    network: Network, spec: ModelSpec, batch_size: int | None, size: tuple[int, int] | None = None
) -> Tensor:
    """Return a batch of seeded noise on the module's device.

    Args:
        network: the wrapped module.
        spec: its input defines shape and type.
        batch_size: number of images. None takes 2.
        size: (height, width) if the spec leaves the size free.
    """
    n = batch_size or 2  # torch.export would make 1 a constant
    k = spec.input.multiple_of
    height, width = spec.input.size or size or (k * -(-96 // k), k * -(-160 // k))
    shape = (n, spec.input.channels, height, width)
    if spec.input.layout == "NHWC":
        shape = (n, height, width, spec.input.channels)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    dtype: torch.dtype = getattr(torch, spec.input.dtype)
    return (pixels * 255 if dtype == torch.uint8 else pixels).to(dtype).to(device_of(network.module))


def failing_module(network: Network, error: BaseException) -> str:
    """Return the path of the innermost module in an error's traceback.

    It is "" if the module is unknown.
    """
    paths = {id(part): name for name, part in network.module.named_modules()}
    running = [paths[id(part)] for part in locals_of(error, "self") if id(part) in paths]
    return running[-1] if running else ""


def locals_of(error: BaseException, name: str) -> Iterator[Any]:
    """Yield a local variable of all frames in an error's traceback.

    The value of the innermost call is the last.
    """
    for cause in _chain(error):
        trace = cause.__traceback__
        while trace is not None:
            if name in trace.tb_frame.f_locals:
                yield trace.tb_frame.f_locals[name]
            trace = trace.tb_next


def export_error(error: BaseException, module_path: str, remedy: str = _REMEDY) -> ExportError:
    """Return a one-line ExportError for an error of torch.

    Raises:
        KeyboardInterrupt: if the cause was Ctrl-C, which torch wraps like any failure.
    """
    cause = list(_chain(error))[-1]
    if isinstance(cause, KeyboardInterrupt):
        raise KeyboardInterrupt from error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    reasons = [line.removeprefix("- ") for line in lines if line.startswith("- ")]  # of violated constraints
    where = f"in module {module_path!r} " if module_path else ""
    return ExportError(
        f"PyTorch cannot export the module ({where}{type(cause).__name__}: {(reasons or lines)[0]}); {remedy}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress output, log and warnings of torch's exporter."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the innermost last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _dynamic_shapes(spec: ModelSpec, batch_size: int | None) -> dict[int, Any]:
    """Return the dynamic dimensions of the input."""
    shapes: dict[int, Any] = {} if batch_size else {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}
    if spec.input.size is None:
        k = spec.input.multiple_of
        first = 2 if spec.input.layout == "NCHW" else 1
        for axis, name in ((first, "height"), (first + 1, "width")):
            if k == 1:
                shapes[axis] = torch.export.Dim(name, min=_MIN_SIDE, max=_MAX_SIDE)
            else:
                shapes[axis] = k * torch.export.Dim(f"{name}_{k}", min=-(-_MIN_SIDE // k), max=max(_MAX_SIDE // k, 2))
    return shapes
