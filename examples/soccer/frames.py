"""Rendered frames as training data: letterbox and augmentation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

INPUT_HW = (192, 320)
PAD_VALUE = 114
# The usual ImageNet statistics, RGB, for pixels in [0, 1].
MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)

Image = NDArray[np.uint8]


def read_image(path: Path) -> Image:
    """Read an image as (H, W, 3) uint8 RGB."""
    return np.ascontiguousarray(_read(path, cv2.IMREAD_COLOR)[..., ::-1])


def read_mask(path: Path) -> Image:
    """Read a mask as (H, W) uint8 class ids."""
    return _read(path, cv2.IMREAD_GRAYSCALE)


def _read(path: Path, flags: int) -> Image:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise OSError(f"{path} is missing or not an image; delete its folder and render again")
    return np.asarray(pixels, dtype=np.uint8)


def content_hw(image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image scaled to fit the network's input.

    Sizes are (height, width), rounded half up.
    """
    (image_h, image_w), (input_h, input_w) = image_hw, INPUT_HW
    if image_h * input_w >= image_w * input_h:
        return input_h, max(1, (2 * image_w * input_h + image_h) // (2 * image_h))
    return max(1, (2 * image_h * input_w + image_w) // (2 * image_w)), input_w


def letterbox(image: Image) -> Image:
    """Scale an image to fit the network's input, and pad it.

    The image is centred, and the padding is `PAD_VALUE`.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (192, 320, 3) uint8.
    """
    height, width = content_hw(image.shape[:2])
    top, left = (INPUT_HW[0] - height) // 2, (INPUT_HW[1] - width) // 2
    boxed = np.full((*INPUT_HW, 3), PAD_VALUE, dtype=np.uint8)
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    boxed[top : top + height, left : left + width] = scaled
    return boxed


def normalize(boxed: Image) -> NDArray[np.float32]:
    """Convert (H, W, 3) uint8 RGB to normalized (3, H, W) float32."""
    scaled = (boxed.astype(np.float32) / 255.0 - MEAN) / STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def crop_and_resize(logits: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Undo the letterbox on logits.

    Args:
        logits: (N, C, 192, 320) float32.
        image_hw: size of the image before the letterbox.

    Returns:
        (N, C, *image_hw) float32, bilinear with half-pixel centres.
    """
    height, width = content_hw(image_hw)
    top, left = (INPUT_HW[0] - height) // 2, (INPUT_HW[1] - width) // 2
    content = logits[..., top : top + height, left : left + width]
    return F.interpolate(content, size=image_hw, mode="bilinear", align_corners=False)


class FrameSet(Dataset[tuple[Tensor, Tensor]]):
    """Frames of a rendered split, in memory.

    Each item is a batch row (3, 192, 320) float32 and its mask (360, 640) uint8.

    Args:
        folder: output of `render.render_split`.
        augment_seed: seed of random augmentation, or None for no augmentation.

    Raises:
        FileNotFoundError: if the folder holds no frames.
    """

    def __init__(self, folder: Path, *, augment_seed: int | None = None) -> None:
        paths = sorted(folder.glob("[0-9]*[0-9].png"))
        if not paths:
            raise FileNotFoundError(f"no frames in {folder}; render them with: python render.py --data {folder.parent}")
        # Letterbox once, because the resize is the same in every epoch.
        self._boxed = [letterbox(read_image(path)) for path in paths]
        self._masks = [read_mask(path.with_stem(f"{path.stem}_mask")) for path in paths]
        self._rng = None if augment_seed is None else np.random.default_rng(augment_seed)

    def __len__(self) -> int:
        return len(self._boxed)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        boxed, mask = self._boxed[index], self._masks[index]
        if self._rng is not None:
            boxed, mask = augment(boxed, mask, self._rng)
        return torch.from_numpy(normalize(boxed)), torch.from_numpy(np.ascontiguousarray(mask))


def augment(boxed: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Flip, and change brightness, contrast, tint and noise.

    The tint changes by a few percent only, because blue and red distinguish home from away.

    Args:
        boxed: (H, W, 3) uint8 RGB, letterboxed symmetrically.
        mask: (h, w) uint8 class ids.
        rng: source of randomness.

    Returns:
        The changed image and mask, of the same shapes and types.
    """
    if rng.random() < 0.5:
        boxed, mask = boxed[:, ::-1], mask[:, ::-1]
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.95, 1.05, size=3)
    noisy = boxed * gain + rng.uniform(-16.0, 16.0)
    noisy += rng.standard_normal(boxed.shape, dtype=np.float32) * rng.uniform(0.0, 5.0)
    return np.clip(noisy, 0.0, 255.0).astype(np.uint8), mask
