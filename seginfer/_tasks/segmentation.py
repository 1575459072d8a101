"""Segmentation: the result for one image, and its conversions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._errors import InputError
from .._geometry.geometry import Geometry
from .._inputs.formats import PixelFormat, check_image, image_size, pixels_of
from .._media.images import write_image
from .._reference.mask import blend
from .._spec.model_spec import ClassSpec, TaskName
from .._system.environment import require, usable_cores
from .regions import Polygon, encode_runs, trace_outlines
from .timings import Timings


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Result for one image. It can be pickled and copied, and `numpy.asarray` of it is the mask.

    Attributes:
        labels: the mask, or for a multilabel task (C, H, W) uint8 of 0 and 1, one plane per class. The array belongs
            to the result. A tensor on a GPU that was given as `out`, which the methods do not read.
        classes: names and colours of the classes.
        task: semantic, binary or multilabel.
        geometry: placement of the image in the network input, or in the frame that its tiles were cut from.
        timings: duration of the stages.
        color: format of the image.
        confidence: probability of each label, float32 in the shape of `labels`, if it was requested.
        margin: by how much each label won, float32 in the shape of `labels`, if it was requested. See
            `seginfer.margin`.
    """

    labels: NDArray[Any]
    classes: ClassSpec
    task: TaskName
    geometry: Geometry
    timings: Timings
    color: PixelFormat = "rgb"
    confidence: NDArray[np.float32] | None = None
    margin: NDArray[np.float32] | None = None
    _threads: int | None = None
    """Threads that `overlay` and `colorize` may use. None for every core."""

    @property
    def mask(self) -> NDArray[Any]:
        """(H, W) class ids, uint8, or uint16 above 256 classes.

        A binary mask holds 0 and 1. Where classes of a multilabel task overlap, the last one counts. Pixels of no class
        hold the ignore index, or the number of classes where there is none.
        """
        return self.labels if self.task != "multilabel" else self._last_ids

    @property
    def _host_labels(self) -> NDArray[Any]:
        """Labels, which must not lie on a GPU."""
        if not isinstance(self.labels, np.ndarray):
            raise InputError(
                f"expected a mask in host memory, got out= as {type(self.labels).__name__} on a GPU; copy `labels` to "
                "the host, in PyTorch with .cpu()"
            )
        return self.labels

    @property
    def _host_mask(self) -> NDArray[Any]:
        return self._host_labels if self.task != "multilabel" else self._last_ids

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._host_mask, dtype) if copy else np.asarray(self._host_mask, dtype)

    def __repr__(self) -> str:
        if not isinstance(self.labels, np.ndarray):
            return f"Segmentation(mask={type(self.labels).__name__} on a GPU, {self.timings.total_ms:.1f} ms)"
        areas = ", ".join(f"{name} {area:.1%}" for name, area in self.class_areas().items() if area)
        return f"Segmentation(mask={self.mask.dtype} {self.mask.shape}, {areas}, {self.timings.total_ms:.1f} ms)"

    def class_areas(self) -> dict[str, float]:
        """Return the share of the image that each class covers, 0..1. Classes of a multilabel task may overlap."""
        pixels = self.geometry.image_hw[0] * self.geometry.image_hw[1]
        if self.task == "multilabel":
            counts = self._host_labels.reshape(len(self.classes.names), -1).sum(1, dtype=np.int64)
        else:
            counts = np.bincount(self._host_labels.ravel(), minlength=len(self.classes.names))
        return {name: float(count / pixels) for name, count in zip(self.classes.names, counts, strict=False)}

    def colorize(self) -> NDArray[np.uint8]:
        """Return the mask in class colours.

        (H, W, 3) uint8 in the channel order of the image, RGB for gray images.
        """
        if _native.core:
            return self._painted(None, 256)
        colors: NDArray[np.uint8] = self._lookup[self._color_ids]
        return colors

    def overlay(self, image: NDArray[np.uint8], *, alpha: float = 0.5) -> NDArray[np.uint8]:
        """Blend the class colours over the segmented image.

        Args:
            image: (H, W, 3) uint8, or (H, W) gray. Its channel order is the one the segmenter was opened with.
            alpha: weight of the colours, 0..1.

        Returns:
            (H, W, 3) uint8 in the image's channel order. Where the colour is black, the image is left as it is.

        Raises:
            InputError: if the image has another size, or alpha is outside 0..1.
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be within 0..1, got {alpha}")
        pixels = self._pixels(image)
        weight = round(alpha * 256)
        if _native.core:
            return self._painted(pixels, weight)
        return blend(pixels, self._lookup[self._color_ids], weight)

    def save(self, path: str | Path) -> None:
        """Write the mask as a picture of class ids.

        The suffix names the format. A .png keeps the ids exactly.

        Raises:
            InputError: for a multilabel mask, which has no single id per pixel, or a format that would change ids.
            OutputWriteError: if the file cannot be written. An old file stays intact.
        """
        if self.task == "multilabel":
            raise InputError("a multilabel mask has several ids per pixel; save `colorize()` or numpy.save the mask")
        mask = self._host_mask
        exact = (".png", ".tif", ".tiff", ".pgm", *((".bmp",) if mask.dtype == np.uint8 else ()))
        if Path(path).suffix.lower() not in exact:
            raise InputError(f"only {', '.join(exact)} keep {mask.dtype} class ids exactly, got {path}; use .png")
        write_image(path, mask)

    def rle(self) -> dict[str, dict[str, Any]]:
        """Return one run-length encoding per class that is present.

        Returns:
            class name -> {"size": [H, W], "counts": [...]}: runs of 0 and 1 in turn, starting with 0, down the columns.

        Source:
            the uncompressed RLE of the COCO annotation format.
        """
        return {name: encode_runs(plane) for _, name, plane in self._planes()}

    def polygons(self) -> list[Polygon]:
        """Return the outlines of all connected regions, holes included.

        Raises:
            MissingDependencyError: if OpenCV is not installed.
        """
        cv2 = require("cv2", extra="cli", purpose="tracing polygons")
        return [
            Polygon(class_id, name, exterior, holes)
            for class_id, name, plane in self._planes()
            for exterior, holes in trace_outlines(cv2, plane)
        ]

    @cached_property
    def _lookup(self) -> NDArray[np.uint8]:
        """Colours by mask value, then black for the ignore value."""
        table = np.array([*self.classes.colors, (0, 0, 0)], np.uint8)
        return np.ascontiguousarray(table[:, ::-1]) if self.color in ("bgr", "bgra") else table

    @cached_property
    def _last_ids(self) -> NDArray[Any]:
        """Ids of a multilabel mask, the last of each pixel."""
        count, ignore = len(self.classes.names), self.classes.ignore_index
        none = count if ignore is None else ignore
        ids = np.full(self.geometry.image_hw, none, np.min_scalar_type(max(none, count)))
        for class_id, _, plane in self._planes():
            ids[plane] = class_id
        return ids

    @property
    def _color_ids(self) -> NDArray[Any]:
        """Row of `_lookup` for each pixel."""
        mask = self._host_mask
        ids: NDArray[Any] = np.minimum(mask, min(len(self.classes.names), np.iinfo(mask.dtype).max))
        return ids

    def _pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Validate the image. Return it as (H, W, 1) or (H, W, 3)."""
        height, width = self.geometry.image_hw
        is_gray = isinstance(image, np.ndarray) and image.shape in ((height, width), (height, width, 1))
        color: PixelFormat = "gray" if is_gray else "rgb" if self.color == "gray" else self.color
        try:
            check_image(image, color)
            is_ours = image_size(image, color) == (height, width)
        except InputError:
            is_ours = False
        if not is_ours:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"overlay needs the uint8 image of {height} x {width} that was segmented, got {got}")
        return pixels_of(image, color)[0]

    def _painted(self, pixels: NDArray[np.uint8] | None, weight: int) -> NDArray[np.uint8]:
        """Blend colours over pixels with the core. None: colours alone."""
        out = np.empty((*self.geometry.image_hw, 3), np.uint8)
        if pixels is not None:
            pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        threads = _native.shared_threads(self._threads or usable_cores())
        _native.core.overlay(pixels, np.ascontiguousarray(self._host_mask), self._lookup[:-1], weight, out, threads)
        return out

    def _planes(self) -> list[tuple[int, str, NDArray[np.bool_]]]:
        """Return (class id, name, (H, W) bool) of every class present.

        0 of a binary mask is not a class.
        """
        is_multilabel, labels = self.task == "multilabel", self._host_labels
        planes = (
            (i, name, labels[i] != 0 if is_multilabel else labels == i)
            for i, name in enumerate(self.classes.names)
            if not (self.task == "binary" and i == 0)
        )
        return [(i, name, plane) for i, name, plane in planes if plane.any()]
