"""Render a short video of a match that is not in the training data.

The camera flies smoothly around the ball.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from cameras import Pose, flight_pose, is_free
from dataset import CLIP_SEED, IMAGE_HW
from match import POSSESSION_S, Match
from numpy.typing import NDArray
from render import Image, Renderer
from tqdm import tqdm

NUM_FRAMES = 48
FRAMES_PER_S = 12
SMOOTHING_S = 1.5


def _times(start_s: float) -> NDArray[np.float64]:
    return start_s + np.arange(NUM_FRAMES) / FRAMES_PER_S


def _flight(match: Match, start_s: float) -> list[Pose]:
    """Return camera poses that follow the averaged position of the ball."""
    # Averaged, so that a pass moves the camera gently.
    shares = np.linspace(0.0, 1.0, NUM_FRAMES)
    around = np.linspace(-SMOOTHING_S, SMOOTHING_S, 13)
    smooth = [np.mean([match.ball_at(max(0.0, t + s)) for s in around], axis=0) for t in _times(start_s)]
    return [flight_pose(ball_xy, share) for ball_xy, share in zip(smooth, shares, strict=True)]


def _stays_free(match: Match, poses: list[Pose], start_s: float) -> bool:
    for pose, time_s in zip(poses, _times(start_s), strict=True):
        match.place(time_s)
        if not is_free(pose, match):
            return False
    return True


def _first_free_flight(match: Match) -> tuple[float, list[Pose]]:
    # Start two seconds before a pass, so that the ball moves in the clip.
    for possession in range(200):
        start_s = (possession + 1) * POSSESSION_S - 4.0
        poses = _flight(match, start_s)
        if _stays_free(match, poses, start_s):
            return start_s, poses
    raise RuntimeError(f"no free flight in the match of seed {CLIP_SEED}; choose another CLIP_SEED")


def clip_frames() -> Iterator[tuple[Image, Image]]:
    """Yield the frames of the clip as (image, mask).

    They are the same in every run.
    """
    with closing(Match(CLIP_SEED)) as match:
        start_s, poses = _first_free_flight(match)
        renderer = Renderer(match)
        match.light(ambient=0.3, diffuse=0.9)
        for pose, time_s in zip(poses, _times(start_s), strict=True):
            match.place(time_s)
            yield renderer.frame(pose)


def write_clip(path: Path) -> None:
    """Write the clip as VP9 in WebM."""
    # Browsers play it, and OpenCV's wheel can read and write it.
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP90"), FRAMES_PER_S, IMAGE_HW[::-1])
    if not writer.isOpened():
        raise OSError(f"this OpenCV cannot write VP9 to {path}; install opencv-python-headless from PyPI")
    for image, _ in tqdm(clip_frames(), total=NUM_FRAMES, desc="render clip", unit="frame"):
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()


def main() -> None:
    """Render the clip to the path on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python clip.py /tmp/soccer/clip.webm")
    parser.add_argument("path", type=Path, help="file to write, ending in .webm")
    args = parser.parse_args()
    try:
        write_clip(args.path)
    except KeyboardInterrupt:
        parser.exit(130, f"\ninterrupted; {args.path} is incomplete\n")


if __name__ == "__main__":
    main()
