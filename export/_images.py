"""Choice of images to compare and to learn ranges from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seginfer._errors import InputError
from seginfer._inputs.formats import check_image, resolve_color
from seginfer._spec.model_spec import InputSpec

from .parity.samples import sample_images
from .precision import Precision

Image = NDArray[np.uint8]
Images = Sequence[Image] | Mapping[str, Image]
"""Images, or images by their names."""

# Half of so many images is enough to measure on. Fewer are all measured on, and ranges come from synthetic images.
_ENOUGH = 8

_log = logging.getLogger("seginfer")


def select_images(
    spec: InputSpec, precision: Precision, images: Images | None, calibration: Sequence[Image] | None
) -> tuple[dict[str, Image], Sequence[Image]]:
    """Separate images to compare from images to learn ranges from.

    No image is in both: a certificate on images that a graph was fitted to shows little about others.

    Args:
        spec: input of the model.
        precision: of the export. Ranges are learned only if it needs calibration.
        images: for the certificate. None takes synthetic ones.
        calibration: to learn from. None takes every second one of `images` if these are 8 or more, else synthetic ones.

    Returns:
        The images to compare by their names, and the images to learn from.

    Raises:
        InputError: if an image does not fit the model, or a list is empty. If `calibration` is given to a precision
            that learns nothing, or holds no image that `images` lacks.
    """
    compared = name_images(sample_images(spec) if images is None else images)
    _check("images", compared.values(), spec)
    if not precision.needs_calibration:
        if calibration is not None:
            raise InputError(f"precision {precision.name!r} takes no calibration images; leave calibration out")
        return compared, ()
    learned: Sequence[Image] = ()
    if calibration is not None:
        _check("calibration", calibration, spec)
        learned = _without(calibration, compared)
        if not learned:
            raise InputError("every calibration image is in images too; give images that differ from those")
    elif images is not None and len(compared) >= _ENOUGH:
        names = list(compared)
        others = [compared[name] for name in names[1::2]]
        compared = {name: compared[name] for name in names[::2]}
        learned = _without(others, compared)
    return compared, learned or sample_images(spec, seed=1)


def name_images(images: Images) -> dict[str, Image]:
    """Return images by their names. Those without a name are numbered."""
    return dict(images) if isinstance(images, Mapping) else {f"image {i}": image for i, image in enumerate(images)}


def image_sha256(image: Image) -> str:
    """Return the hash of an image's shape and pixels."""
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _check(name: str, images: Iterable[Image], spec: InputSpec) -> None:
    images = list(images)
    if not images:
        raise InputError(f"{name} is empty; give at least one image, or None for the default")
    for image in images:
        check_image(image, resolve_color(None, spec))


def _without(images: Sequence[Image], others: Mapping[str, Image]) -> list[Image]:
    """Return the images that are not among others."""
    known = set(map(image_sha256, others.values()))
    kept = [image for image in images if image_sha256(image) not in known]
    if len(kept) < len(images):
        _log.warning("%d calibration images are left out, because they are compared too", len(images) - len(kept))
    return kept
