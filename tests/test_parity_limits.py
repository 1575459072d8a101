"""Every limit of a certificate holds: an error just above it fails at its stage, and one just below passes.

Errors are planted in measurements made up here, at shares of the data that the documentation of the limits states.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import make_spec
from numpy.typing import NDArray
from torch import nn

from seginfer import Certificate, ExportError
from seginfer.export.parity.comparison import ParityMetric
from seginfer.export.parity.noise_floor import _InFloat64
from seginfer.export.parity.other_sizes import check_other_sizes
from seginfer.export.parity.torch_reference import ReferenceOutput
from seginfer.export.precision import PRECISIONS

SIDE = 100
PIXELS = SIDE * SIDE
LARGEST = 8.0
ULP = 2.0**-23
LEVEL = 1 / 255


def decided_output(weakest: float = 1.0) -> NDArray[np.float32]:
    """Return values of three classes that are 0 or the largest one; those of class 2 are a share of it."""
    labels = np.arange(PIXELS).reshape(SIDE, SIDE) * 3 // PIXELS
    output: NDArray[np.float32] = LARGEST * (labels == np.arange(3)[:, None, None]).astype(np.float32)[None]
    output[:, 2] *= weakest
    return output


@dataclass
class Planted:
    """Two equal pipelines on one image, until an error is added to the exported one."""

    spec_fields: dict[str, Any] = field(default_factory=dict)
    output: NDArray[np.float32] = field(default_factory=decided_output)

    def __post_init__(self) -> None:
        self.spec = make_spec(**{"size": (SIDE, SIDE), "mean": (0.0,), "std": (1.0,), **self.spec_fields})
        self.batch = np.linspace(0, 1, 3 * PIXELS, dtype=np.float64).reshape(1, 3, SIDE, SIDE)
        self.batch = (255 * self.batch).round() if self.spec.input.dtype == "uint8" else self.batch
        self.labels = self.output[0].argmax(0)
        self.margin = np.full((SIDE, SIDE), LARGEST, np.float32)
        self.batch_error = np.zeros_like(self.batch)
        self.output_error = np.zeros_like(self.output)
        self.mask = self.labels.copy()

    def leave_undecided(self, count: int) -> None:
        """Take the margin of some pixels."""
        self.margin.ravel()[:count] = 0

    def flip(self, count: int, label: int = 0, margin: float = 0.0) -> None:
        """Give another label to some pixels of a class, which PyTorch decides by this margin."""
        places = np.flatnonzero(self.labels == label)[:count]
        self.mask.ravel()[places] = (label + 1) % 3
        self.margin.ravel()[places] = margin

    def metric(self, precision: str = "fp32") -> ParityMetric:
        metric = ParityMetric(self.spec, PRECISIONS[precision])
        output = self.output + self.output_error
        trace = SimpleNamespace(batch=self.batch + self.batch_error, output=output, mask=self.mask)
        expected = ReferenceOutput(self.batch, self.output, self.labels, self.margin)
        metric.update(expected, trace, output)
        return metric

    def compute(self, precision: str = "fp32") -> Certificate:
        certificate: Certificate = self.metric(precision).compute()
        return certificate


def test_equal_pipelines_pass() -> None:
    for precision in ("fp32", "fp16"):
        certificate = Planted().compute(precision)
        assert certificate.passed
        assert certificate.stage is None


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_an_output_value_is_off_by_a_share_of_the_largest(precision: str, share: float) -> None:
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted()
        planted.output_error[0, 0, 0, 0] = factor * share * LARGEST
        assert planted.compute(precision).stage == stage


@pytest.mark.parametrize(("precision", "weakest", "share"), [("fp32", 2e-3, 1e-2), ("fp16", 0.1, 5e-2)])
def test_a_faint_channel_is_off_by_a_share_of_its_own_largest(precision: str, weakest: float, share: float) -> None:
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted(output=decided_output(weakest))
        planted.output_error[0, 2, 0, 0] = factor * share * weakest * LARGEST
        assert planted.compute(precision).stage == stage


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-5), ("fp16", 1e-3)])
def test_a_channel_of_zeros_is_off_by_a_share_of_the_largest_of_all(precision: str, share: float) -> None:
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted(output=decided_output(0))
        planted.output_error[0, 2, 0, 0] = factor * share * LARGEST
        assert planted.compute(precision).stage == stage


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.5), ("fp16", 0.1)])
def test_a_share_of_the_pixels_is_undecided(precision: str, share: float) -> None:
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted()
        planted.leave_undecided(round(factor * share * PIXELS))
        assert planted.compute(precision).stage == stage


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.001), ("fp16", 0.002)])
def test_a_share_of_the_pixels_has_other_labels(precision: str, share: float) -> None:
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted()
        planted.flip(round(factor * share * PIXELS))
        assert planted.compute(precision).stage == stage


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_rare_class_has_other_labels(precision: str) -> None:
    """Of 50 pixels, 4 leave an IoU of 0.92 and a mean over three classes of 0.973; 2 leave 0.987."""
    output = decided_output()
    output[0, 2, :, :] = 0
    output[0, 2, -1, -50:] = 2 * LARGEST
    for count, stage in ((4, "network"), (2, None)):
        planted = Planted(output=output)
        planted.flip(count, label=2)
        certificate = planted.compute(precision)
        assert certificate.stage == stage
        assert certificate.pixel_agreement > 0.999


def test_a_pixel_is_decided_beyond_the_rounding_of_the_interpolation() -> None:
    """The margin has two ends, and each end is off by four units in the last place."""
    for units, stage in ((9, "postprocess"), (7, None)):
        planted = Planted()
        planted.flip(1, margin=units * ULP * LARGEST)
        assert planted.compute().stage == stage


def test_a_pixel_is_decided_beyond_twice_the_error_of_the_output() -> None:
    for factor, stage in ((2.2, "postprocess"), (1.8, None)):
        planted = Planted()
        planted.output_error[0, 1, 0, 0] = 5e-5 * LARGEST
        planted.flip(1, margin=factor * 5e-5 * LARGEST)
        assert planted.compute().stage == stage


@pytest.mark.parametrize(
    ("resampling", "levels"), [("opencv", 1), ("pillow", 1), ("torch", 0.05), ("torch-antialias", 0.05)]
)
def test_a_preprocessed_value_is_off_by_levels(resampling: str, levels: float) -> None:
    for factor, stage in ((1.1, "preprocess"), (0.9, None)):
        planted = Planted({"resampling": resampling})
        planted.batch_error[0, 0, 0, 0] = factor * levels * LEVEL
        assert planted.compute().stage == stage


def test_a_value_that_is_not_resampled_is_off_by_rounding() -> None:
    for units, stage in ((5, "preprocess"), (3, None)):
        planted = Planted({"resampling": "nearest"})
        planted.batch_error[0, 0, 0, 0] = units * ULP
        assert planted.compute().stage == stage


@pytest.mark.parametrize("std", [1.0, 0.2])
def test_a_channel_is_off_by_a_part_of_a_level_in_the_mean(std: float) -> None:
    for levels, stage in ((0.022, "preprocess"), (0.018, None)):
        planted = Planted({"std": (std,)})
        planted.batch_error[0, 1] = levels * LEVEL / std
        assert planted.compute().stage == stage


def test_bytes_are_off_by_one_in_a_share_of_the_pixels() -> None:
    for share, stage in ((0.022, "preprocess"), (0.018, None)):
        planted = Planted({"dtype": "uint8", "scale": 1.0})
        planted.batch_error[0, 1].ravel()[: round(share * PIXELS)] = 1
        assert planted.compute().stage == stage


@pytest.mark.parametrize(
    ("own", "limit"),
    [(0.0005, 0.002), (0.002, 0.008), (0.02, 0.01), (0.3, 0.01)],
    ids=["four times", "four times more", "never beyond 1 %", "never beyond 1 %, whatever PyTorch does"],
)
def test_a_pipeline_flips_four_times_as_many_labels_as_pytorch(own: float, limit: float) -> None:
    noise_floor = Planted()
    noise_floor.flip(round(own * PIXELS))
    for factor, stage in ((1.1, "network"), (0.9, None)):
        planted = Planted()
        planted.output_error[0, 0, 0, 0] = LARGEST  # a maximum in another place
        planted.flip(round(factor * limit * PIXELS))
        certificate = planted.metric().compute(noise_floor.metric())
        assert certificate.stage == stage
        assert certificate.rounding_agreement == pytest.approx(1 - own)


def test_a_rare_class_keeps_its_labels_whatever_pytorch_does() -> None:
    """Of 50 pixels, 9 leave a mean IoU of 0.94, and 6 leave 0.96."""
    output = decided_output()
    output[0, 2, :, :] = 0
    output[0, 2, -1, -50:] = 2 * LARGEST
    noise_floor = Planted(output=output)
    noise_floor.flip(25, label=2)
    for count, stage in ((9, "network"), (6, None)):
        planted = Planted(output=output)
        planted.flip(count, label=2)
        assert planted.metric().compute(noise_floor.metric()).stage == stage


def test_pytorchs_own_rounding_is_that_of_its_inputs() -> None:
    x = torch.rand(1, 3, 64, 64)
    moved = (_InFloat64(nn.Identity())(x) - x.double()).abs().max().item() / (ULP * x.abs().max().item())
    assert 3.9 < moved < 4.1


@pytest.mark.parametrize(("share", "is_refused"), [(0.022, True), (0.018, False)])
def test_other_sizes_are_off_by_a_share_in_the_mean(share: float, is_refused: bool) -> None:
    spec = make_spec(size=None, resize="pad", multiple_of=4)

    def infer(batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return {spec.output.name: batch + np.float32(share) * batch.max()}

    backend = SimpleNamespace(batch_size=None, infer=infer)
    segmenter: Any = SimpleNamespace(spec=spec, backend=backend)
    if is_refused:
        with pytest.raises(ExportError, match="off PyTorch"):
            check_other_sizes(nn.Identity(), segmenter)
    else:
        check_other_sizes(nn.Identity(), segmenter)
