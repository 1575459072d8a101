"""Pipelines as users write them, with none of seginfer's code, for a network of `networks.Tiny`."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from networks import SIZE, Tiny
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(image: NDArray[np.uint8]) -> Tensor:
    """Resize and normalise an image as in training."""
    resized = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    x = torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def at_image_size(values: Tensor, image: NDArray[np.uint8]) -> Tensor:
    hw = (image.shape[0], image.shape[1])
    return F.interpolate(values, hw, mode="bilinear", align_corners=False)[0]


def logits(image: NDArray[np.uint8], module: Any = None) -> Tensor:
    """Return (C, H, W) logits."""
    return at_image_size((module or Tiny().eval())(preprocess(image)), image)


def labels(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (H, W) labels."""
    result: NDArray[np.int64] = logits(image).argmax(0).numpy()
    return result


def probabilities(image: NDArray[np.uint8]) -> Tensor:
    """Return (C, H, W) probabilities."""
    return logits(image).softmax(0)


def without_modules(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (H, W) labels, and call no module of PyTorch."""
    net = Tiny().eval()
    norm: Any = net.norm
    x = F.conv2d(preprocess(image), net.first.weight, net.first.bias, padding=1)
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    x = F.conv2d(x, net.last.weight, net.last.bias, padding=1)
    result: NDArray[np.int64] = at_image_size(x, image).argmax(0).detach().numpy()
    return result


def other_classes(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return labels of training, in which classes 1 and 2 had the other order."""
    return np.array([0, 2, 1])[labels(image)]


def failing(_image: NDArray[np.uint8]) -> Any:
    raise KeyError("no checkpoint\nat all")


def random(image: NDArray[np.uint8]) -> Any:
    return torch.rand(3, *image.shape[:2])


def too_small(image: NDArray[np.uint8]) -> Any:
    return Tiny().eval()(preprocess(image))


NOT_A_FUNCTION = 3
