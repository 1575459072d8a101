"""Render images and exact masks of dm_control's soccer pitch on the CPU."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import cv2
import mujoco
import numpy as np
from cameras import Pose, random_pose
from dataset import AWAY, BALL, CLASSES, FIELD, GOAL, HOME, IMAGE_HW, LINE, OUT, SPLITS, Split
from dm_control.mujoco import MovableCamera
from match import Match
from numpy.typing import NDArray
from tqdm import tqdm

SUPERSAMPLING = 2
# Paint is white and grass is green in any light. Blue over green is 1.0 on paint and below 0.3 on grass.
PAINT_BLUE_OVER_GREEN = 0.67

Image = NDArray[np.uint8]


def class_of_geom(name: str) -> int:
    """Return the class id of a geometry of the simulator."""
    if name == "ground":
        return FIELD
    prefixes = (("//unnamed", OUT), ("home_goal", GOAL), ("away_goal", GOAL), ("soccer_ball", BALL))
    for prefix, class_id in (*prefixes, ("home", HOME), ("away", AWAY)):
        if name.startswith(prefix):
            return class_id
    raise ValueError(f"no class for the geometry {name!r}; dm_control 1.0.50 has no such name")


class Renderer:
    """Renderer of one match.

    Args:
        match: must stay open, because its simulator owns the graphics memory.
    """

    def __init__(self, match: Match) -> None:
        height, width = (SUPERSAMPLING * size for size in IMAGE_HW)
        self._physics = match.physics
        self._camera = MovableCamera(match.physics, height, width)
        names = [match.physics.model.id2name(i, "geom") for i in range(match.physics.model.ngeom)]
        self._class_of_geom = np.array([class_of_geom(name) for name in names], dtype=np.uint8)

    def frame(self, pose: Pose) -> tuple[Image, Image]:
        """Render a pose.

        Returns:
            The image, (360, 640, 3) uint8 RGB, and its mask, (360, 640) uint8 class ids.
        """
        self._physics.model.vis.global_.fovy = pose.fovy_deg
        self._camera.set_pose(*pose.orbit())
        # Shadow maps take forty times as long as all else together. The camera reuses its buffer, so copy it.
        fine = self._camera.render(render_flag_overrides={"shadow": False}).copy()
        objects = self._camera.render(segmentation=True)
        return _shrink_image(fine), _shrink_mask(self._mask(fine, objects))

    def _mask(self, image: Image, objects: NDArray[np.int32]) -> Image:
        ids, kinds = objects[..., 0], objects[..., 1]
        mask = np.zeros(ids.shape, dtype=np.uint8)
        # With the enum itself, NumPy compares Python objects, which takes half a second.
        geoms = kinds == int(mujoco.mjtObj.mjOBJ_GEOM)
        mask[geoms] = self._class_of_geom[ids[geoms]]
        # Lines are painted in the texture of the field. They have no geometry and no id.
        paint = image[..., 2] > PAINT_BLUE_OVER_GREEN * image[..., 1]
        mask[(mask == FIELD) & paint] = LINE
        return mask


def _shrink_image(fine: Image) -> Image:
    return np.asarray(cv2.resize(fine, IMAGE_HW[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _shrink_mask(fine: Image) -> Image:
    """Return the class that covers most of each pixel. Ties take the lowest id."""
    height, width = IMAGE_HW
    blocks = fine.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    corners = [blocks[:, i, :, j] for i in range(SUPERSAMPLING) for j in range(SUPERSAMPLING)]
    covered = np.stack([sum((corner == c).astype(np.uint8) for corner in corners) for c in range(len(CLASSES))])
    return np.asarray(covered.argmax(axis=0), dtype=np.uint8)


def frames_of_match(split: Split, seed: int) -> Iterator[tuple[Image, Image]]:
    """Yield frames of one match at random times, lights and poses.

    Equal seeds give equal frames.
    """
    rng = np.random.default_rng([seed, 7])
    with closing(Match(seed)) as match:
        renderer = Renderer(match)
        for i in range(split.frames_per_match):
            match.light(ambient=rng.uniform(0.1, 0.4), diffuse=rng.uniform(0.5, 1.15))
            match.place(time_s=rng.uniform(0.0, 600.0))
            yield renderer.frame(random_pose(match, split.families[i % len(split.families)], rng))


def write_png(path: Path, image: Image) -> None:
    """Write an RGB image or a mask as PNG."""
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise OSError(f"could not write {path}")


def render_split(split: Split, data: Path) -> Path:
    """Render a split into `data`, unless the same recipe is there.

    Returns:
        The folder with `0000.png` (image), `0000_mask.png` (class ids), and so on.
    """
    folder, recipe = data / split.name, json.dumps(asdict(split))
    if (folder / "recipe.json").is_file() and (folder / "recipe.json").read_text() == recipe:
        return folder
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data, prefix=f".{split.name}-") as name:
        complete = Path(name) / split.name
        complete.mkdir()
        _write_frames(split, complete)
        (complete / "recipe.json").write_text(recipe)
        shutil.rmtree(folder, ignore_errors=True)
        complete.rename(folder)
    return folder


def _write_frames(split: Split, folder: Path) -> None:
    with tqdm(total=split.num_frames, desc=f"render {split.name}", unit="frame") as progress:
        for match in range(split.num_matches):
            for image, mask in frames_of_match(split, split.first_seed + match):
                write_png(folder / f"{progress.n:04d}.png", image)
                write_png(folder / f"{progress.n:04d}_mask.png", mask)
                progress.update()


def main() -> None:
    """Render the splits on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python render.py --data /tmp/soccer train validation test",
    )
    parser.add_argument("splits", nargs="*", help=f"any of: {', '.join(SPLITS)} (default: all)")
    parser.add_argument("--data", type=Path, required=True, help="folder for the rendered frames")
    args = parser.parse_args()
    if unknown := set(args.splits) - set(SPLITS):
        parser.error(f"unknown split {', '.join(sorted(unknown))}; choose from {', '.join(SPLITS)}")
    try:
        for name in args.splits or SPLITS:
            render_split(SPLITS[name], args.data)
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted; complete splits are kept\n")


if __name__ == "__main__":
    main()
