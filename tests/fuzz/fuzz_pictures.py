"""Fuzzes the reader of pictures: only a SegInferError comes of bad ones, and good ones are pixels."""

from __future__ import annotations

import os

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(1 << 22)  # before OpenCV: a header can ask for gigabytes
os.environ["OPENCV_LOG_LEVEL"] = "OFF"

import numpy as np
from driver import check_refusal, folder, instrument, run

from seginfer._media import images
from seginfer._media.images import read_image

PATH = folder() / "picture.png"


def read(gray: bool) -> None:
    image = read_image(PATH, gray=gray)
    assert image.dtype == np.uint8
    assert image.size
    assert image.shape[2:] == (() if gray else (3,))
    image.sum()


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    for gray in (False, True):
        check_refusal(lambda gray=gray: read(gray))  # type: ignore[misc]


if __name__ == "__main__":
    instrument(images)
    run(target, most_bytes=3000)
