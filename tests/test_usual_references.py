"""References as users write them: other forms of results, and other places of the same steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import user_pipelines as users
from networks import SIZE, Tiny, make_spec, pictures
from PIL import Image
from refusal import refuses
from torch import Tensor, nn

from seginfer import Certificate, ExportError, ModelSpec, Segmenter
from seginfer.export import certify
from seginfer.export.parity.torch_reference import torch_backend

SPEC = make_spec(mean=users.MEAN, std=users.STD)
BINARY = replace(make_spec("binary"), input=SPEC.input)
MULTILABEL = replace(make_spec("multilabel"), input=SPEC.input)
IMAGES = pictures((150, 220), (97, 64))


def compare(spec: ModelSpec, reference: Any, module: nn.Module | None = None) -> Certificate:
    module = module or Tiny().eval()
    found: Certificate = certify(module, Segmenter(spec, torch_backend(module, spec)), IMAGES, reference=reference)
    return found


class Sigmoids(nn.Module):
    """One class against the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.net(x) / 4)


def test_probabilities_that_do_not_sum_to_one() -> None:
    module = Sigmoids().eval()
    spec = replace(SPEC, outputs=(replace(SPEC.output, kind="probabilities"),))
    assert compare(spec, lambda image: users.logits(image, module), module).passed


def test_masks_as_floating_point_values_are_labels() -> None:
    one = Tiny(1).eval()
    for spec, module in ((BINARY, one), (MULTILABEL, Tiny().eval())):
        found = compare(spec, lambda image, module=module: (users.logits(image, module) > 0).float(), module)
        assert found.passed
        assert found.reference_undecided_share == 0
    one_hot = compare(SPEC, lambda image: torch.eye(3)[users.labels(image)].permute(2, 0, 1))
    assert one_hot.passed
    assert one_hot.reference_undecided_share == 0


def test_labels_of_255_are_told_to_be_divided() -> None:
    module = Tiny(1).eval()
    with refuses(ExportError, "divide them by 255"):
        compare(BINARY, lambda image: (users.logits(image, module)[0] > 0).numpy().astype(np.uint8) * 255, module)


def test_bfloat16_is_taken() -> None:
    assert compare(SPEC, lambda image: users.logits(image).argmax(0).bfloat16().int()).passed
    assert compare(SPEC, lambda image: users.logits(image).bfloat16()).stage in (None, "postprocess", "reference")


def test_one_pixel_of_a_rare_class_is_rounding() -> None:
    module = Tiny().eval()
    with torch.no_grad():
        assert module.last.bias is not None
        module.last.bias[2] = -50

    def reference(image: Any) -> Any:
        labels = users.logits(image, module).argmax(0)
        labels[0, 0] = 2
        return labels

    images = pictures((200, 220))
    found = certify(module, Segmenter(SPEC, torch_backend(module, SPEC)), images, reference=reference)
    assert found.passed


def test_another_resampling_is_not_called_another_mean() -> None:
    def reference(image: Any) -> Any:
        resized = np.asarray(Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BILINEAR))
        x = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].float() / 255
        x = (x - torch.tensor(users.MEAN).view(3, 1, 1)) / torch.tensor(users.STD).view(3, 1, 1)
        return users.at_image_size(Tiny().eval()(x), image)

    found = compare(SPEC, reference)
    assert not found.passed
    assert found.stage == "preprocess"
    assert found.finding is not None
    assert "resampling differs" in found.finding


class Norm(nn.Module):
    """Normalisation as a module, with values of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - torch.tensor((0.3, 0.35, 0.4)).view(3, 1, 1)) / torch.tensor((0.1, 0.15, 0.12)).view(3, 1, 1)


def test_the_input_of_a_module_that_normalises_is_not_that_of_the_network() -> None:
    def reference(image: Any) -> Any:
        x = torch.from_numpy(cv2.resize(image, SIZE[::-1])).permute(2, 0, 1)[None].float() / 255
        return users.at_image_size(Tiny().eval()(Norm()(x)), image)

    assert compare(make_spec(mean=(0.3, 0.35, 0.4), std=(0.1, 0.15, 0.12)), reference).passed
    found = compare(make_spec(mean=(0.0,), std=(1.0,)), reference)
    assert (found.passed, found.stage) == (False, "preprocess")
    assert "mean=(0.3, 0.35, 0.4)" in str(found.finding)


def test_flips_in_one_batch_do_not_hide_the_input() -> None:
    def reference(image: Any) -> Any:
        x = users.preprocess(image)
        both = Tiny().eval()(torch.cat((x.flip(3), x)))
        return users.at_image_size((both[:1].flip(3) + both[1:]) / 2, image)

    found = compare(SPEC, reference)
    assert found.stage != "preprocess", found.finding


@pytest.mark.parametrize("text", ["abc", "nan", "1e20"])
def test_a_bad_date_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with refuses(ExportError, "seconds since 1970", text):
        compare(SPEC, None)
