"""Choice of images to compare and to learn ranges from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seginfer._errors import InputError
from seginfer._inputs.formats import check_image, resolve_color
from seginfer._spec.model_spec import InputSpec

from .parity.samples import sample_images
from .precision import Precision

Images = Sequence[NDArray[np.uint8]]

# Half of so many images is enough to measure on. Fewer are all measured on, and ranges come from synthetic images.
_ENOUGH = 8

_log = logging.getLogger("seginfer")


def select_images(
    spec: InputSpec, precision: Precision, images: Images | None, calibration: Images | None
) -> tuple[Images, Images]:
    """Separate images to compare from images to learn ranges from.

    No image is in both: a certificate on images that a graph was fitted to shows little about others.

    Args:
        spec: input of the model.
        precision: of the export. Ranges are learned only if it needs calibration.
        images: for the certificate. None takes synthetic ones.
        calibration: to learn from. None takes every second one of `images` if these are 8 or more, else synthetic ones.

    Returns:
        The images to compare, and the images to learn from.

    Raises:
        InputError: if an image does not fit the model, or a list is empty. If `calibration` is given to a precision
            that learns nothing, or holds no image that `images` lacks.
    """
    compared = sample_images(spec) if images is None else _check("images", images, spec)
    if not precision.needs_calibration:
        if calibration is not None:
            raise InputError(f"precision {precision.name!r} takes no calibration images; leave calibration out")
        return compared, ()
    learned: Images = ()
    if calibration is not None:
        learned = _without(_check("calibration", calibration, spec), compared)
        if not learned:
            raise InputError("every calibration image is in images too; give images that differ from those")
    elif images is not None and len(compared) >= _ENOUGH:
        compared, learned = compared[::2], _without(compared[1::2], compared[::2])
    return compared, learned or sample_images(spec, seed=1)


def _check(name: str, images: Images, spec: InputSpec) -> Images:
    images = list(images)
    if not images:
        raise InputError(f"{name} is empty; give at least one image, or None for the default")
    for image in images:
        check_image(image, resolve_color(None, spec))
    return images


def _without(images: Images, others: Images) -> Images:
    """Return the images that are not among others."""
    known = {(image.shape[:2], image.tobytes()) for image in others}
    kept = [image for image in images if (image.shape[:2], image.tobytes()) not in known]
    if len(kept) < len(images):
        _log.warning("%d calibration images are left out, because they are compared too", len(images) - len(kept))
    return kept
