"""Adaptive pooling and resizing are rewritten exactly: in PyTorch, in ONNX Runtime, at sizes that were not traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surgery_cases import DTYPE, SIDE, apply_surgery, run
from torch import Tensor
from torch.nn import functional as F

from seginfer.export.surgery import _adaptive_pool, _antialias

# -------------------------------------------------------------------------------------- adaptive pooling


@settings(max_examples=100)
@given(hw=st.tuples(SIDE, SIDE), bins=st.tuples(st.integers(1, 9), st.integers(1, 9)), dtype=DTYPE)
def test_adaptive_pooling_equals_torch_for_any_bins(
    hw: tuple[int, int], bins: tuple[int, int], dtype: torch.dtype
) -> None:
    x = torch.randn(2, 3, *hw, generator=torch.Generator().manual_seed(hash(hw))).to(dtype)
    average, expected = _adaptive_pool.average_by_matrix(x, list(bins)), F.adaptive_avg_pool2d(x.float(), bins)
    atol = tolerances.ADAPTIVE_POOL.limit if dtype == torch.float32 else tolerances.SURGERY_IN_HALF.limit
    torch.testing.assert_close(average.float(), expected, rtol=0, atol=atol)
    assert torch.equal(_adaptive_pool.maximum_by_slices(x, list(bins)), F.adaptive_max_pool2d(x, bins))


@pytest.mark.parametrize("size", [(16, 20), None], ids=["fixed", "free"])
@pytest.mark.parametrize("bins", [(6, 6), (3, 1), (None, 3)], ids=str)
def test_pyramid_pooling_stays_small_and_exact(bins: tuple[int | None, int], size: tuple[int, int] | None) -> None:
    model, done = apply_surgery(lambda x: F.adaptive_avg_pool2d(x, bins), size)
    assert done == ["adaptive average pooling as two matrix products"]
    for hw in [size] if size else [(23, 17), (50, 41)]:
        x = torch.rand(2, 3, *hw)
        np.testing.assert_allclose(run(model, x), F.adaptive_avg_pool2d(x, bins).numpy(), atol=1e-6)
    if size:
        assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul"]


@pytest.mark.parametrize("size", [(16, 20), None], ids=["fixed", "free"])
def test_adaptive_max_pooling_is_exact(size: tuple[int, int] | None) -> None:
    model, done = apply_surgery(lambda x: F.adaptive_max_pool2d(x, (3, 6)), size)
    assert done == ["adaptive max pooling as a maximum over slices"]
    for hw in [size] if size else [(23, 17), (50, 41)]:
        x = torch.rand(2, 3, *hw)
        assert np.array_equal(run(model, x), F.adaptive_max_pool2d(x, (3, 6)).numpy())


@pytest.mark.parametrize("bins", [1, (4, 5), (16, 20)], ids=str)
def test_adaptive_pooling_that_divides_is_left_alone(bins: int | tuple[int, int]) -> None:
    model, done = apply_surgery(lambda x: F.adaptive_avg_pool2d(x, bins), (16, 20))
    assert not done
    assert len(model.graph.node) <= 1


# -------------------------------------------------------------------------------------- resizing


@settings(max_examples=100)
@given(
    hw=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    size=st.tuples(st.integers(1, 40), st.integers(2, 40)),
    mode=st.sampled_from(["bilinear", "bicubic"]),
    align_corners=st.booleans(),
    dtype=DTYPE,
)
def test_antialias_by_matrix_equals_torch(
    hw: tuple[int, int], size: tuple[int, int], mode: str, align_corners: bool, dtype: torch.dtype
) -> None:
    x = torch.rand(2, 3, *hw, generator=torch.Generator().manual_seed(hash(hw))).to(dtype)
    expected = F.interpolate(x.float(), size, mode=mode, align_corners=align_corners, antialias=True)
    ours = _antialias.resize_by_matrix(x, list(size), align_corners=align_corners, bilinear=mode == "bilinear")
    atol = tolerances.ANTIALIAS_BY_MATRIX.limit if dtype == torch.float32 else tolerances.SURGERY_IN_HALF.limit
    torch.testing.assert_close(ours.float(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("traced", [(16, 20), None], ids=["fixed", "free"])
@pytest.mark.parametrize("arguments", [{"size": (5, 9)}, {"scale_factor": 0.6}, {"scale_factor": (1.7, 0.6)}], ids=str)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialias_is_exact_in_onnx(mode: str, arguments: dict[str, Any], traced: tuple[int, int] | None) -> None:
    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, **arguments, mode=mode, antialias=True)

    model, done = apply_surgery(resize, traced)
    assert done == ["antialiased resize as two matrix products"]
    assert "Resize" not in {node.op_type for node in model.graph.node}
    for hw in [traced] if traced else [(23, 17), (50, 41)]:
        x = torch.rand(2, 3, *hw)
        np.testing.assert_allclose(run(model, x), resize(x).numpy(), atol=tolerances.ANTIALIAS_BY_MATRIX.limit)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (33, 47), "align_corners": True},
        {"size": (33, 47), "align_corners": False},
        {"size": (1, 9), "align_corners": True},
        {"scale_factor": 1.7, "align_corners": True},
        {"scale_factor": 1.7, "align_corners": False},
        {"scale_factor": 0.6, "align_corners": False},
        {"scale_factor": 1.7, "align_corners": False, "recompute_scale_factor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("traced", [(16, 20), None], ids=["fixed", "free"])
def test_align_corners_and_factors_arrive_in_onnx_as_they_are(
    arguments: dict[str, Any], traced: tuple[int, int] | None
) -> None:
    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, mode="bilinear", **arguments)

    model, done = apply_surgery(resize, traced)
    assert not done
    for hw in [traced] if traced else [(23, 17), (50, 41)]:
        x = torch.rand(2, 3, *hw)
        np.testing.assert_allclose(run(model, x), resize(x).numpy(), atol=tolerances.RESIZE_IN_ONNX.limit)
