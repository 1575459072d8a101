"""Fuzzes the reader of videos: only a SegInferError comes of bad ones, and good frames are pixels."""

from __future__ import annotations

from itertools import islice

import av
import numpy as np
from driver import check_refusal, folder, instrument, run

from seginfer._media import video
from seginfer._media.video import VideoReader

PATH = folder() / "video.mp4"
av.logging.set_level(None)


def read() -> None:
    reader = VideoReader(PATH)
    assert reader.frame_rate > 0
    assert reader.approximate_length >= 0
    for _, image in islice(reader.timed(), 20):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        image.sum()


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    check_refusal(read)


if __name__ == "__main__":
    instrument(video)
    run(target, most_bytes=6000)
