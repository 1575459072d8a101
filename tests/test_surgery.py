"""Graph surgery is exact: in PyTorch, in ONNX Runtime, with ties, at odd sizes, in float16, at sizes not traced."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rtx
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import make_spec
from surgery_cases import DTYPE, SIDE, apply_surgery, run, tied
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import ExportError
from seginfer.export import _graph, surgery
from seginfer.export._network import Network
from seginfer.export._program import export_program
from seginfer.export.surgery import _transposed
from seginfer.export.surgery._unpool import (
    Window,
    indices_from_codes,
    max_pool_with_codes,
    unpool_codes,
    unpool_indices,
)

# -------------------------------------------------------------------------------------- pooling with indices


@st.composite
def windows(draw: st.DrawFn) -> Window:
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel = draw(pair)
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    return Window(kernel, draw(pair), padding, dilation, draw(st.booleans()))


@settings(max_examples=150)
@given(window=windows(), hw=st.tuples(SIDE, SIDE), dtype=DTYPE)
def test_pooling_of_any_window_gives_the_values_and_indices_of_torch(
    window: Window, hw: tuple[int, int], dtype: torch.dtype
) -> None:
    assume(all(n + 2 * p > d * (k - 1) for n, k, p, d in zip(hw, window.kernel, window.padding, window.dilation)))  # noqa: B905
    x = tied(2, 3, *hw, seed=hash(hw)).to(dtype)
    values, indices = F.max_pool2d(x, *window, return_indices=True)
    assume(torch.isfinite(values).all())  # dilation may leave a small image's window nothing but padding
    pooled, code = max_pool_with_codes(x, window)
    assert torch.equal(pooled, values)
    assert torch.equal(indices_from_codes(x, code, window), indices)


@settings(max_examples=100)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ceil_mode=st.booleans(),
    hw=st.tuples(SIDE, SIDE),
    dtype=DTYPE,
)
def test_unpooling_by_codes_equals_unpooling_by_indices(
    kernel: tuple[int, int], ceil_mode: bool, hw: tuple[int, int], dtype: torch.dtype
) -> None:
    assume(all(n >= k for n, k in zip(hw, kernel, strict=True)))
    x = tied(2, 3, *hw, seed=hash(hw)).to(dtype)
    values, indices = F.max_pool2d(x, kernel, ceil_mode=ceil_mode, return_indices=True)
    values = values - 2  # what a decoder's convolutions make of them, negative too
    window = Window(kernel, kernel, (0, 0), (1, 1), ceil_mode)
    _, code = max_pool_with_codes(x, window)
    expected = F.max_unpool2d(values, indices, kernel, output_size=hw)
    assert torch.equal(unpool_codes(values, code, window, list(hw)), expected)
    assert torch.equal(unpool_indices(values, indices, list(hw)), expected)


def segnet_step(k: int, s: int | None = None, padding: int = 0, **options: Any) -> Callable[[Tensor], Tensor]:
    def step(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, k, s, padding, return_indices=True, **options)
        return F.max_unpool2d(pooled * 2 - 1, indices, k, s, padding, output_size=x.shape)  # type: ignore[arg-type]  # torch takes a number too

    return step


@pytest.mark.parametrize("size", [(16, 20), (17, 21), (15, 22)], ids=str)
@pytest.mark.parametrize(
    ("step", "what"),
    [
        (segnet_step(2), "without scatter"),
        (segnet_step(3), "without scatter"),
        (segnet_step(2, ceil_mode=True), "without scatter"),
        (segnet_step(3, 2, 1), "as a scatter"),
        (segnet_step(2, 3), "as a scatter"),
    ],
)
def test_unpooling_is_exact_in_onnx(step: Callable[[Tensor], Tensor], what: str, size: tuple[int, int]) -> None:
    model, done = apply_surgery(step, size)
    x = tied(2, 3, *size)
    assert np.array_equal(run(model, x), step(x).numpy())
    assert what in done[-1]
    types = {node.op_type for node in model.graph.node}
    assert "MaxPool" not in types
    assert ("ScatterElements" in types) == ("scatter" in what and "without" not in what)


@pytest.mark.parametrize("multiple_of", [1, 2])
@pytest.mark.parametrize("step", [segnet_step(2), segnet_step(3, 2, 1)], ids=["tiling", "overlapping"])
def test_unpooling_is_exact_at_sizes_that_were_not_traced(step: Callable[[Tensor], Tensor], multiple_of: int) -> None:
    model, _ = apply_surgery(step, None, multiple_of)
    for size in ((24, 30), (46, 12), *([(31, 17)] if multiple_of == 1 else [])):
        x = tied(3, 3, *size)
        assert np.array_equal(run(model, x), step(x).numpy())


def test_a_network_that_takes_fewer_sizes_than_the_spec_says_is_refused() -> None:
    def skip(x: Tensor) -> Tensor:  # the two differ in size where a side is odd
        return x + F.interpolate(F.max_pool2d(x, 2), scale_factor=2)

    with pytest.raises(ExportError, match=r"input\.multiple_of is 1; set it to 2"):
        apply_surgery(skip, None, 1)


def test_unpooling_into_another_width_keeps_pytorchs_flat_indices() -> None:
    def skewed(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return torch.ops.aten.max_unpool2d(pooled, indices, [18, 24])

    model, _ = apply_surgery(skewed, (16, 20))
    x = tied(2, 3, 16, 20)
    assert np.array_equal(run(model, x), skewed(x).numpy())


def test_indices_that_something_else_reads_are_computed() -> None:
    def both(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, indices, 2) + indices.float().mean()  # type: ignore[arg-type]  # torch takes a number too

    model, done = apply_surgery(both, (16, 20))
    x = tied(2, 3, 16, 20)
    np.testing.assert_allclose(run(model, x), both(x).numpy(), rtol=1e-6)
    assert done == ["max-pooling indices computed from window positions"]


def test_one_pooling_may_be_undone_twice() -> None:
    def twice(x: Tensor) -> Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, indices, 2) - F.max_unpool2d(pooled * pooled, indices, 2)  # type: ignore[arg-type]  # torch takes a number too

    model, _ = apply_surgery(twice, (16, 20))
    x = tied(2, 3, 16, 20)
    assert np.array_equal(run(model, x), twice(x).numpy())


@pytest.mark.parametrize("options", [{}, {"return_indices": True}], ids=["plain", "indices unread"])
def test_plain_max_pooling_stays_one_node(options: dict[str, Any]) -> None:
    def pool(x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2, **options)
        return pooled[0] if options else pooled

    model, done = apply_surgery(pool, (16, 20))
    assert [(node.op_type, len(node.output)) for node in model.graph.node] == [("MaxPool", 1)]
    assert len(done) == len(options)


def test_dilated_max_pooling_is_exact() -> None:
    model, done = apply_surgery(lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2), (16, 21))
    x = tied(2, 3, 16, 21)
    assert np.array_equal(run(model, x), F.max_pool2d(x, 3, 1, 1, dilation=2).numpy())
    assert done == ["dilated max pooling as a maximum over slices"]


# -------------------------------------------------------------------------------------- transposed convolution


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
)
def test_a_kernel_with_its_holes_filled_by_zeros_is_the_dilated_one(
    kernel: tuple[int, int], dilation: tuple[int, int], stride: int, padding: int, groups: int
) -> None:
    x, weight = tied(1, 4, 6, 7), tied(4, 3, *kernel, seed=1) - 1  # whole numbers: every sum is exact
    assume(all((n - 1) * stride + d * (k - 1) >= 2 * padding for n, k, d in zip((6, 7), kernel, dilation, strict=True)))
    expected = F.conv_transpose2d(x, weight, None, stride, padding, groups=groups, dilation=dilation)
    filled = _transposed.insert_zeros(weight, dilation)
    assert torch.equal(F.conv_transpose2d(x, filled, None, stride, padding, groups=groups), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_a_strided_dilated_transposed_convolution_is_exact_in_onnx(bias: bool) -> None:
    layer = nn.ConvTranspose2d(3, 6, 3, stride=2, padding=1, output_padding=1, dilation=2, groups=3, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(tied(3, 2, 3, 3, seed=1) - 1)
    model, done = apply_surgery(layer, (16, 20))
    assert done == ["dilated transposed convolution with zeros in its kernel"]
    x = tied(2, 3, 16, 20)
    np.testing.assert_allclose(run(model, x), layer(x).detach().numpy(), rtol=1e-6)
    assert [node.op_type for node in model.graph.node] == ["ConvTranspose"]


# -------------------------------------------------------------------------------------- NVIDIA's builder

REWRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "unpooling": segnet_step(2),
    "unpooling, windows of 3": segnet_step(3),
    "unpooling, rounded up": segnet_step(2, ceil_mode=True),
    "unpooling, overlapping windows": segnet_step(3, 2, 1),
    "dilated max pooling": lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2),
    "dilated transposed convolution": lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 3, 3), stride=2, dilation=2),
    "adaptive average pooling": lambda x: F.adaptive_avg_pool2d(x, (3, 6)),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, (3, 6)),
    "antialias, bilinear": lambda x: F.interpolate(x, (5, 9), mode="bilinear", antialias=True),
    "antialias, bicubic": lambda x: F.interpolate(x, (5, 9), mode="bicubic", antialias=True),
}


@pytest.mark.parametrize("size", [(16, 20), (17, 21), None], ids=str)
@pytest.mark.parametrize("name", REWRITTEN)
def test_what_was_rewritten_builds(name: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    model, done = apply_surgery(REWRITTEN[name], size)
    assert done
    onnx.save(model, tmp_path / "m.onnx")
    rtx.build(tmp_path / "m.onnx")


# -------------------------------------------------------------------------------------- names


def test_nodes_are_named_after_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.unpool(*self.pool(self.stem(x)))

    spec = make_spec()
    network = Network(Net().eval(), spec)
    program = export_program(network, spec, torch.rand(2, 3, 48, 64), None)
    assert [rewrite.module_path for rewrite in surgery.apply_rewrites(program)] == ["pool"]
    graph = _graph.onnx_graph(program, spec).graph
    names = [node.name for node in graph.node]
    assert names[:2] == ["stem.0/Conv", "stem.2/Relu"]
    assert len(set(names)) == len(names)
    assert "unpool/Where" in names
    assert [tensor.name for tensor in graph.initializer][:2] == ["stem.0.weight", "stem.0.bias"]
