"""Checks of masks against PyTorch, before any timing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _errors import check
from numpy.typing import NDArray
from pictures import mixed_share, picture

from seginfer import Segmenter
from seginfer._tasks.task import Wants
from seginfer.export.parity.comparison import ROUNDINGS
from seginfer.export.parity.dense import upsample_output
from seginfer.export.parity.torch_reference import ReferenceOutput, TorchReference

from .networks import BenchNetwork

Array = NDArray[Any]

DISTINCT = 4
"""Number of pictures. Larger batches repeat them."""

# Largest share of pixels that may be undecided. Without a limit, large errors would leave no decisive pixel to fail.
# Random weights have smaller margins than trained ones. Measured with the U-Net at 512 x 1024 in ONNX Runtime on a CPU:
# 1e-4 and 0.08. A GPU may round more often.
_MOST_UNDECIDED = {"fp32": 0.01, "fp16": 0.25}

# Scripts round the resized picture to uint8, or interpolate in float16. Measured as above: 0.994 and more.
_LEAST_SHARE = 0.97
_QUICK_SHARE = 0.85  # small pictures are mostly borders


class Frames(NamedTuple):
    """A batch of pictures, and PyTorch's result for each."""

    images: list[Array]
    references: list[ReferenceOutput]

    def batch(self, count: int) -> Frames:
        """Return a batch of `count` frames."""
        numbers = [i % len(self.images) for i in range(count)]
        return Frames([self.images[i] for i in numbers], [self.references[i] for i in numbers])


def frames_for(network: BenchNetwork, image_hw: tuple[int, int], count: int) -> Frames:
    """Return up to DISTINCT pictures with PyTorch's results.

    PyTorch runs in float32 on the CPU.
    """
    images = [picture(image_hw, seed) for seed in range(min(count, DISTINCT))]
    run = TorchReference(network.module, network.spec)
    return Frames(images, [run(image) for image in images])


def facts_of(frames: Frames) -> dict[str, Any]:
    """Return how hard the pictures are for the mask step."""
    return {"mixed_share": mixed_share(frames.references[0].output)}


def check_segmenter(segmenter: Segmenter, frames: Frames, precision: str) -> tuple[dict[str, Any], Array]:
    """Compare a segmenter's masks with PyTorch's on every decisive pixel.

    A pixel is decisive where PyTorch's margin exceeds twice the largest error of a logit, as in a certificate.

    Returns:
        The comparison, and the network's input.

    Raises:
        CheckError: if a decisive pixel differs, or errors are so large that few pixels are decisive.
    """
    results, ios = segmenter._segment(frames.images, None, Wants(), keep_io=True)
    masks = [result.labels for result in results]
    batch, output = ios[0].batch, ios[0].outputs[segmenter.spec.output.name]  # no copy: it may be gigabytes
    if len(ios) > 1:
        batch = np.concatenate([io.batch for io in ios])
        output = np.concatenate([io.outputs[segmenter.spec.output.name] for io in ios])
    check(len(output) == len(masks), f"{segmenter!r} ran {len(output)} network inputs for {len(masks)} frames")
    rows = [upsample_output(output[i : i + 1], segmenter.spec.output) for i in range(len(masks))]
    error = max(_largest(row - reference.output) for row, reference in zip(rows, frames.references, strict=True))
    largest = max(_largest(reference.output) for reference in frames.references)
    limit = 2 * (error + ROUNDINGS * float(np.finfo(np.float32).eps) * largest)
    decisive = [reference.margin > limit for reference in frames.references]
    same = [mask == reference.labels for mask, reference in zip(masks, frames.references, strict=True)]
    wrong = sum(int((sure & ~equal).sum()) for sure, equal in zip(decisive, same, strict=True))
    undecided = 1 - float(np.mean(decisive))
    check(
        wrong == 0,
        f"{segmenter!r} differs from PyTorch on {wrong} decisive pixels (margin above {limit:.1e}), expected none; "
        "run the tests before timing anything",
    )
    check(
        undecided <= _MOST_UNDECIDED[precision],
        f"{segmenter!r} has errors of {error:.1e} in logits of up to {largest:.1e}, which leaves {undecided:.1%} of "
        f"the pixels undecided, expected at most {_MOST_UNDECIDED[precision]:.0%}; run the tests before timing "
        "anything",
    )
    return {
        "frames": len(masks),
        "decisive_pixels": int(np.sum(decisive)),
        "decisive_pixels_unlike_pytorch": wrong,
        "undecided_share": undecided,
        "pixel_agreement": float(np.mean(same)),
        "logit_max_error": error,
        "largest_logit": largest,
    }, batch


def check_masks(name: str, masks: Sequence[Array], frames: Frames, *, quick: bool) -> float:
    """Return the share of a script's pixels that equal PyTorch's.

    Raises:
        CheckError: if the share is too small for the same work.
    """
    for mask, reference in zip(masks, frames.references, strict=True):
        check(
            mask.shape == reference.labels.shape,
            f"{name} made a mask of {mask.shape}, expected {reference.labels.shape}",
        )
    pairs = zip(masks, frames.references, strict=True)
    share = float(np.mean([mask == reference.labels for mask, reference in pairs]))
    least = _QUICK_SHARE if quick else _LEAST_SHARE
    check(share >= least, f"{name} agrees with PyTorch on {share:.4f} of the pixels, expected at least {least}")
    return share


def _largest(values: Array) -> float:
    return float(np.abs(values).max())
