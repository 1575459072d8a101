"""What people write without an SDK: the same work in NumPy with cv2, and in torch; peers and oracle at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from networks import MEAN, STD
from numpy.typing import NDArray

Array = NDArray[Any]
Size = tuple[int, int]

_MEAN, _STD = np.array(MEAN, np.float32), np.array(STD, np.float32)

# Differing pixels are near ties: their two best classes are apart by no more than this share of the largest logit.
# torch rounds in the same order, cv2 computes its weights otherwise; measured: no such pixel, and 5e-6.
NEAR_TIE = {"torch": 1e-6, "cv2": 1e-5}


def numpy_batch(image: Array, input_hw: Size) -> Array:
    """Make a batch as most inference scripts do: cv2 resizes, NumPy normalises."""
    import cv2

    resized = cv2.resize(image, input_hw[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = (resized.astype(np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def blob_batch(image: Array, input_hw: Size) -> Array:
    """Make a batch with cv2.dnn.blobFromImage, which knows no standard deviation: that is divided by afterwards."""
    import cv2

    blob: Array = cv2.dnn.blobFromImage(image, 1 / 255, input_hw[::-1], tuple(255 * m for m in MEAN), swapRB=False)
    blob /= _STD[:, None, None]
    return blob


def blob_params_batch(input_hw: Size) -> Callable[[Array], Array]:
    """Return what makes a batch with cv2.dnn.blobFromImageWithParams, which takes a scale per channel."""
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
    """Make a batch as torch does: interpolate on floats, then normalise."""
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(pixels, size=input_hw, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        batch: Array = resized.div_(255).sub_(mean).div_(std).numpy()
    return batch


def cv2_mask(logits: Array, image_hw: Size) -> Array:
    """Make a mask from (1, C, h, w) logits with cv2.resize per class and np.argmax."""
    import cv2

    planes = [cv2.resize(plane, image_hw[::-1], interpolation=cv2.INTER_LINEAR) for plane in logits[0]]
    mask: Array = np.argmax(planes, axis=0).astype(np.uint8)
    return mask


def torch_logits(logits: Array, image_hw: Size) -> Any:
    """Return (1, C, h, w) logits at the image's size, as a torch tensor."""
    import torch

    with torch.inference_mode():
        tensor = torch.from_numpy(logits)
        return torch.nn.functional.interpolate(tensor, size=image_hw, mode="bilinear", align_corners=False)


def torch_mask(logits: Array, image_hw: Size) -> Array:
    """Make a mask from (1, C, h, w) logits with torch.nn.functional.interpolate and argmax."""
    import torch

    with torch.inference_mode():
        mask: Array = torch_logits(logits, image_hw).argmax(1)[0].to(torch.uint8).numpy()
    return mask


def margin_where_different(mask: Array, other: Array, logits: Array) -> tuple[int, float]:
    """Return on how many pixels two masks differ, and how clear the most decided of those was.

    Clear is the lead of the best class over what the other mask says, as a share of the largest logit; `logits` are
    the (1, C, h, w) that both masks were made of, enlarged here by torch.
    """
    y, x = np.nonzero(mask != other)
    if not len(y):
        return 0, 0.0
    full = torch_logits(logits, mask.shape).numpy()[0]
    lead = np.abs(full[mask[y, x], y, x] - full[other[y, x], y, x])
    return len(y), float(lead.max() / np.abs(logits).max())
