"""Peers without an SDK, in cv2 with NumPy and in torch.

torch is also the reference of the checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cpu_networks import MEAN, STD
from numpy.typing import NDArray

Array = NDArray[Any]
Size = tuple[int, int]

_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)

# Pixels that differ are near ties: their two best classes differ by at most this share of the largest logit. torch
# rounds in the same order, cv2 computes its weights differently. Measured: no such pixel, and 5e-6.
NEAR_TIE = {"torch": 1e-6, "cv2": 1e-5}


def numpy_batch(image: Array, input_hw: Size) -> Array:
    """Make a batch with cv2.resize and NumPy, as most scripts do."""
    import cv2

    resized = cv2.resize(image, input_hw[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = (resized.astype(np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def blob_batch(image: Array, input_hw: Size) -> Array:
    """Make a batch with cv2.dnn.blobFromImage.

    It takes no standard deviation, so a division follows.
    """
    import cv2

    blob: Array = cv2.dnn.blobFromImage(image, 1 / 255, input_hw[::-1], tuple(255 * m for m in MEAN), swapRB=False)
    blob /= _STD[:, None, None]
    return blob


def blob_params_batch(input_hw: Size) -> Callable[[Array], Array]:
    """Return a function that makes a batch with cv2.dnn.blobFromImageWithParams.

    It takes a scale per channel.
    """
    import cv2

    params = cv2.dnn.Image2BlobParams()
    params.size = input_hw[::-1]
    params.scalefactor = (*(1 / (255 * s) for s in STD), 1.0)
    params.mean = (*(255 * m for m in MEAN), 0.0)

    def batch(image: Array) -> Array:
        blob: Array = cv2.dnn.blobFromImageWithParams(image, params)
        return blob

    return batch


def torch_batch(image: Array, input_hw: Size) -> Array:
    """Make a batch in torch: interpolate floats, then normalize."""
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(pixels, size=input_hw, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        batch: Array = resized.div_(255).sub_(mean).div_(std).numpy()
    return batch


def cv2_mask(logits: Array, image_hw: Size) -> Array:
    """Make a mask with cv2.resize per class and np.argmax.

    `logits` are (1, C, h, w).
    """
    import cv2

    planes = [cv2.resize(plane, image_hw[::-1], interpolation=cv2.INTER_LINEAR) for plane in logits[0]]
    mask: Array = np.argmax(planes, axis=0).astype(np.uint8)
    return mask


def torch_logits(logits: Array, image_hw: Size) -> Any:
    """Return (1, C, h, w) logits at the image's size, in torch."""
    import torch

    with torch.inference_mode():
        tensor = torch.from_numpy(logits)
        return torch.nn.functional.interpolate(tensor, size=image_hw, mode="bilinear", align_corners=False)


def torch_mask(logits: Array, image_hw: Size) -> Array:
    """Make a mask with torch interpolate and argmax.

    `logits` are (1, C, h, w).
    """
    import torch

    with torch.inference_mode():
        mask: Array = torch_logits(logits, image_hw).argmax(1)[0].to(torch.uint8).numpy()
    return mask


def margin_where_different(mask: Array, other: Array, logits: Array) -> tuple[int, float]:
    """Return the number of pixels that differ, and the largest margin among them.

    A margin is the difference between the logits of both masks' classes, as a share of the largest logit. `logits` are
    the (1, C, h, w) of both masks. torch enlarges them here.
    """
    y, x = np.nonzero(mask != other)
    if not len(y):
        return 0, 0.0
    full = torch_logits(logits, mask.shape).numpy()[0]
    lead = np.abs(full[mask[y, x], y, x] - full[other[y, x], y, x])
    return len(y), float(lead.max() / np.abs(logits).max())
