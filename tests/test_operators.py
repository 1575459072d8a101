"""Upsampling, number by number: what PyTorch computes by hand's rules, ONNX Runtime repeats and TensorRT builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rtx
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = torch.tensor([[[[3.0, 1.0], [2.0, 0.0]]]])
KERNEL = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
POOLED = torch.tensor([[[[3.0, 5.0], [7.0, 9.0]]]])
INDICES = torch.tensor([[[[0, 2], [8, 10]]]])


class Operator(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def transposed(**arguments: Any) -> Operator:
    return Operator(lambda image: F.conv_transpose2d(image, KERNEL, **arguments))


def unpooled(values: Tensor, indices: Tensor) -> Tensor:
    return F.max_unpool2d(values, indices, kernel_size=(2, 2), stride=(2, 2))


def export(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    program = torch.onnx.export(module.eval(), inputs, dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(path)


def run(path: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    """Run a file in ONNX Runtime, and check that the shape it declares is the one that comes out."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    (result,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    assert tuple(session.get_outputs()[0].shape) == result.shape
    assert isinstance(result, np.ndarray)
    return torch.from_numpy(result)


def check(module: nn.Module, inputs: tuple[Tensor, ...], expected: list[list[float]], path: Path) -> None:
    """Expect the same matrix of PyTorch and of ONNX Runtime, and that TensorRT builds the file."""
    matrix = torch.tensor(expected)[None, None]
    assert torch.equal(module(*inputs), matrix)
    export(module, inputs, path)
    assert torch.equal(run(path, inputs), matrix)
    rtx.build(path)


def test_a_transposed_convolution_adds_a_kernel_per_pixel(tmp_path: Path) -> None:
    """3 K at the top left, 1 K one column on, 2 K one row down, 0 K on the diagonal; where they overlap they add up."""
    expected = [
        [3.0, 6.0 + 1.0, 2.0],
        [9.0 + 2.0, 12.0 + 3.0 + 4.0 + 0.0, 4.0 + 0.0],
        [6.0, 8.0 + 0.0, 0.0],
    ]
    check(transposed(), (IMAGE,), expected, tmp_path / "m.onnx")


def test_with_stride_2_the_kernels_lie_side_by_side(tmp_path: Path) -> None:
    expected = [
        [3.0, 6.0, 1.0, 2.0],
        [9.0, 12.0, 3.0, 4.0],
        [2.0, 4.0, 0.0, 0.0],
        [6.0, 8.0, 0.0, 0.0],
    ]
    check(transposed(stride=2), (IMAGE,), expected, tmp_path / "m.onnx")


@pytest.mark.parametrize(("stride", "expected"), [(1, [[19.0]]), (2, [[12.0, 3.0], [4.0, 0.0]])])
def test_padding_takes_the_outermost_pixels_away(stride: int, expected: list[list[float]], tmp_path: Path) -> None:
    check(transposed(stride=stride, padding=1), (IMAGE,), expected, tmp_path / "m.onnx")


def test_output_padding_adds_a_row_and_a_column_at_the_end(tmp_path: Path) -> None:
    expected = [[12.0, 3.0, 4.0], [4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]
    check(transposed(stride=2, padding=1, output_padding=1), (IMAGE,), expected, tmp_path / "m.onnx")


def test_average_unpooling_fills_each_block_with_its_value(tmp_path: Path) -> None:
    expected = [
        [3.0, 3.0, 5.0, 5.0],
        [3.0, 3.0, 5.0, 5.0],
        [7.0, 7.0, 9.0, 9.0],
        [7.0, 7.0, 9.0, 9.0],
    ]
    module = Operator(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"))
    check(module, (POOLED,), expected, tmp_path / "m.onnx")
    assert torch.equal(F.avg_pool2d(torch.tensor(expected)[None, None], 2), POOLED)


def test_max_unpooling_puts_each_value_where_its_index_says(tmp_path: Path) -> None:
    """Indices count through the 4 x 4 result row by row: 0 and 2 lie in its first row, 8 and 10 in its third."""
    expected = [
        [3.0, 0.0, 5.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [7.0, 0.0, 9.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    check(Operator(unpooled), (POOLED, INDICES), expected, tmp_path / "m.onnx")
    assert "ScatterND" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    values, indices = F.max_pool2d(torch.tensor(expected)[None, None], 2, return_indices=True)
    assert torch.equal(values, POOLED)
    assert torch.equal(indices, INDICES)


def test_max_pooling_that_returns_its_indices_runs_everywhere_but_in_tensorrt(tmp_path: Path) -> None:
    image = torch.rand(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    module = Operator(lambda x: unpooled(*F.max_pool2d(x, 2, return_indices=True)))
    export(module, (image,), tmp_path / "m.onnx")
    assert torch.equal(run(tmp_path / "m.onnx", (image,)), module(image))
    with pytest.raises(AssertionError, match="outputs for MaxPool"):
        rtx.build(tmp_path / "m.onnx")


def test_a_transposed_convolution_with_stride_and_dilation_runs_everywhere_but_in_tensorrt(tmp_path: Path) -> None:
    module = transposed(stride=2, dilation=2, output_padding=1)
    export(module, (IMAGE,), tmp_path / "m.onnx")
    assert torch.equal(run(tmp_path / "m.onnx", (IMAGE,)), module(IMAGE))
    with pytest.raises(AssertionError, match="Strided & Dilated"):
        rtx.build(tmp_path / "m.onnx")


def convolved_length(n: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Source: the positions at which a kernel fits, `torch.nn.Conv2d`'s documentation."""
    return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def transposed_length(n: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int) -> int:
    """Source: `torch.nn.ConvTranspose2d`'s documentation."""
    return (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


AXIS = st.tuples(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5), st.integers(0, 4), st.integers(1, 4))


@given(AXIS, AXIS)
def test_a_convolution_is_as_large_as_the_formula_says(rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
    expected = [convolved_length(*axis) for axis in (rows, columns)]
    assume(min(expected) > 0)
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    image, weight = torch.empty(1, 2, *size, device="meta"), torch.empty(3, 2, *kernel, device="meta")
    result = F.conv2d(image, weight, stride=stride, padding=padding, dilation=dilation)
    assert result.shape == (1, 3, *expected)


@given(AXIS, AXIS, st.integers(0, 4), st.integers(0, 4))
def test_a_transposed_convolution_is_as_large_as_the_formula_says(
    rows: tuple[int, ...], columns: tuple[int, ...], more_rows: int, more_columns: int
) -> None:
    more = (more_rows, more_columns)
    assume(all(extra < max(axis[2], axis[4]) for extra, axis in zip(more, (rows, columns), strict=True)))
    expected = [transposed_length(*axis, extra) for axis, extra in zip((rows, columns), more, strict=True)]  # type: ignore[call-arg]
    assume(min(expected) > 0)
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    image, weight = torch.empty(1, 2, *size, device="meta"), torch.empty(2, 3, *kernel, device="meta")
    result = F.conv_transpose2d(image, weight, stride=stride, padding=padding, output_padding=more, dilation=dilation)
    assert result.shape == (1, 3, *expected)


@given(AXIS)
def test_with_the_right_output_padding_a_transposed_convolution_undoes_the_size(axis: tuple[int, ...]) -> None:
    n, kernel, stride, padding, dilation = axis
    short = convolved_length(*axis)
    assume(short > 0)
    left_over = (n + 2 * padding - dilation * (kernel - 1) - 1) % stride
    assert transposed_length(short, kernel, stride, padding, dilation, left_over) == n


CONVOLUTIONS = [(12, 3, 1, 1, 1), (13, 3, 2, 1, 1), (20, 7, 2, 3, 1), (21, 3, 1, 4, 4), (17, 4, 3, 0, 2)]
TRANSPOSED = [(6, 2, 2, 0, 1, 0), (7, 3, 2, 1, 1, 1), (5, 4, 2, 1, 1, 0), (5, 16, 8, 4, 1, 0), (6, 3, 1, 2, 2, 0)]


@pytest.mark.parametrize("axis", CONVOLUTIONS, ids=str)
def test_an_exported_convolution_has_the_formula_s_size(axis: tuple[int, ...], tmp_path: Path) -> None:
    n, kernel, stride, padding, dilation = axis
    module = nn.Conv2d(2, 3, kernel, stride=stride, padding=padding, dilation=dilation)
    image = torch.rand(1, 2, n, n + stride)
    export(module, (image,), tmp_path / "m.onnx")
    rows = convolved_length(*axis)
    assert run(tmp_path / "m.onnx", (image,)).shape == (1, 3, rows, rows + 1)
    rtx.build(tmp_path / "m.onnx")


@pytest.mark.parametrize("axis", TRANSPOSED, ids=str)
def test_an_exported_transposed_convolution_has_the_formula_s_size(axis: tuple[int, ...], tmp_path: Path) -> None:
    n, kernel, stride, padding, dilation, more = axis
    module = nn.ConvTranspose2d(2, 3, kernel, stride=stride, padding=padding, dilation=dilation, output_padding=more)
    image = torch.rand(1, 2, n, n + 1)
    export(module, (image,), tmp_path / "m.onnx")
    rows = transposed_length(*axis)
    assert run(tmp_path / "m.onnx", (image,)).shape == (1, 3, rows, rows + stride)
    rtx.build(tmp_path / "m.onnx")
