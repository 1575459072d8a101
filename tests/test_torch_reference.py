"""Masks equal those of PyTorch's own operations for every placement, aligned with the logit cells or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st

from seginfer import ClassSpec, Geometry, InputSpec, ModelSpec, OutputSpec, postprocess
from seginfer.export.parity.dense import decide

SIDE = st.integers(1, 24).map(lambda n: 4 * n)


@settings(max_examples=150)
@given(
    resize=st.sampled_from(["stretch", "letterbox", "center-crop"]),
    channels=st.sampled_from([1, 2, 7]),
    stride=st.sampled_from([1, 2, 4]),
    align_corners=st.booleans(),
    input_hw=st.tuples(SIDE, SIDE),
    image_hw=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    seed=st.integers(0, 2**32 - 1),
)
def test_masks_equal_torch_wherever_the_margin_exceeds_rounding(
    resize: Any,
    channels: int,
    stride: int,
    align_corners: bool,
    input_hw: tuple[int, int],
    image_hw: tuple[int, int],
    seed: int,
) -> None:
    spec = ModelSpec(
        "binary" if channels == 1 else "semantic",
        InputSpec(size=input_hw, resize=resize),
        ClassSpec(tuple(f"class {i}" for i in range(max(channels, 2)))),
        (OutputSpec(stride=stride, align_corners=align_corners),),
    )
    shape = (1, channels, input_hw[0] // stride, input_hw[1] // stride)
    logits = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    geometry = Geometry.place(image_hw, spec.input)
    labels, margin = decide(logits, geometry, spec)
    (mask,) = postprocess(logits, [geometry], spec)
    differing = margin[labels != mask]
    assert differing.max(initial=0) <= tolerances.MASK_ROUNDING.limit * np.abs(logits).max()
