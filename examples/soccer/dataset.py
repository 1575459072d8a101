"""What is rendered: classes, sizes, seeds and camera families; nothing here needs the simulator."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("background", "field", "out-of-field", "goal", "ball", "home", "away", "line")
BACKGROUND, FIELD, OUT, GOAL, BALL, HOME, AWAY, LINE = range(8)
IMAGE_HW = (360, 640)
TEAM_SIZE = 4

TRAIN_FAMILIES = ("robot", "near", "stand")
# "chase" is never seen in training: validation and test use it to measure poses of another kind.
HELD_OUT_FAMILIES = (*TRAIN_FAMILIES, "chase")


@dataclass(frozen=True)
class Split:
    """A recipe for a set of frames; equal recipes give equal frames.

    Attributes:
        name: folder of the split.
        first_seed: seed of the first match; the next matches take the next seeds.
        num_matches: how many matches.
        frames_per_match: how many frames of each.
        families: camera families, taken in turn.
    """

    name: str
    first_seed: int
    num_matches: int
    frames_per_match: int
    families: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames in the whole split."""
        return self.num_matches * self.frames_per_match


TRAIN = Split("train", 1000, 40, 18, TRAIN_FAMILIES)
VALIDATION = Split("validation", 2000, 12, 8, HELD_OUT_FAMILIES)
TEST = Split("test", 3000, 12, 8, HELD_OUT_FAMILIES)
SPLITS = {split.name: split for split in (TRAIN, VALIDATION, TEST)}
CLIP_SEED = 4000
