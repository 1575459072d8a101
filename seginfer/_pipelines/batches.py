"""Grouping of network inputs into batches of one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._errors import InputError
from .._geometry.geometry import Size
from .._spec.model_spec import InputSpec
from .._tasks.timings import Timings
from .pipeline import BatchItem, NetworkIO, Pipeline

# Memory must not grow with the image, nor with the list.
_TILES, _IMAGES = 4, 8


def run_batches(
    pipeline: Pipeline, items: Sequence[BatchItem], free_limit: int | None, keep_io: bool = False
) -> tuple[dict[int, Timings], list[NetworkIO]]:
    """Run items in as few batches as the pipeline allows.

    Args:
        pipeline: runs each batch.
        items: network inputs of one call.
        free_limit: the largest batch where the pipeline has no limit.
        keep_io: also return copies of the network's inputs and outputs.

    Returns:
        Time by image, and one NetworkIO per batch if it was requested.
    """
    timings: dict[int, Timings] = {}
    ios = []
    for batch in [items] if len(items) == 1 else _batches(pipeline, items, free_limit):
        result = pipeline.run(batch, keep_io=keep_io)
        for number in {item.number for item in batch}:
            timings[number] = timings[number] + result.timings if number in timings else result.timings
        if result.io is not None:
            ios.append(result.io)
    return timings, ios


def _batches(pipeline: Pipeline, items: Sequence[BatchItem], free_limit: int | None) -> list[list[BatchItem]]:
    groups: dict[Size, list[BatchItem]] = {}
    for item in items:
        groups.setdefault(item.geometry.input_hw, []).append(item)
    batches = []
    for input_hw, group in groups.items():
        step = pipeline.batch_limit(input_hw) or free_limit or len(group)
        batches += [group[k : k + step] for k in range(0, len(group), step)]
    return batches


def batch_limit(batch_size: int | None, spec: InputSpec) -> int:
    """Return the largest batch where the graph has no limit.

    Args:
        batch_size: positive, or None for a default.
        spec: input of the model.

    Raises:
        InputError: if the size is anything else.
    """
    is_integer = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if batch_size is not None and (not is_integer or batch_size < 1):
        raise InputError(f"batch_size must be a positive integer or None, got {batch_size!r}")
    return batch_size or (_TILES if spec.resize == "tile" else _IMAGES)
