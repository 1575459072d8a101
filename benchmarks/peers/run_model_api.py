"""Peer OpenVINO Model API, in an environment of its own.

Its segmentation wrapper takes the argmax at the network's resolution and enlarges it by nearest neighbour. By default
it also enlarges the scores of every class ("soft prediction"). Both modes are timed.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import cv2
import numpy as np
from _protocol import Channel
from model_api.models import SegmentationModel


def main() -> None:
    """Open the model twice, save both masks, and serve."""
    channel, job = Channel(), json.loads(sys.argv[1])
    cv2.setNumThreads(job["threads"])
    image = np.load(job["image"])
    default, mask_only = (_open(job, soft=soft) for soft in (True, False))
    np.savez(job["result"], default=default(image).resultImage, mask_only=mask_only(image))
    versions = {name: importlib.metadata.version(name) for name in ("openvino", "openvino-model-api", "numpy")}
    calls = {"default": lambda: default(image), "mask_only": lambda: mask_only(image)}
    channel.serve(calls, {"versions": versions, "threads": job["threads"]})


def _open(job: dict[str, Any], *, soft: bool) -> Any:
    configuration = {
        "mean_values": [255 * value for value in job["mean"]],
        "scale_values": [255 * value for value in job["std"]],
        "resize_type": "standard",
        "return_soft_prediction": soft,
    }
    return SegmentationModel.create_model(
        job["model"],
        model_type="Segmentation",
        configuration=configuration,
        device="CPU",
        nthreads=job["threads"],
    )


main()
