"""Classes, sizes, seeds and camera families of the data set."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("background", "field", "out-of-field", "goal", "ball", "home", "away", "line")
BACKGROUND, FIELD, OUT, GOAL, BALL, HOME, AWAY, LINE = range(8)
IMAGE_HW = (360, 640)
TEAM_SIZE = 4

TRAIN_FAMILIES = ("robot", "near", "stand")
# "chase" is not in the training data. Validation and test measure unseen kinds of poses with it.
HELD_OUT_FAMILIES = (*TRAIN_FAMILIES, "chase")


@dataclass(frozen=True)
class Split:
    """Recipe of a set of frames. Equal recipes give equal frames.

    Attributes:
        name: folder of the split.
        first_seed: seed of the first match. The next matches use the next seeds.
        num_matches: number of matches.
        frames_per_match: number of frames per match.
        families: camera families, taken in turn.
    """

    name: str
    first_seed: int
    num_matches: int
    frames_per_match: int
    families: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames in the split."""
        return self.num_matches * self.frames_per_match


TRAIN = Split("train", 1000, 40, 18, TRAIN_FAMILIES)
VALIDATION = Split("validation", 2000, 12, 8, HELD_OUT_FAMILIES)
TEST = Split("test", 3000, 12, 8, HELD_OUT_FAMILIES)
SPLITS = {split.name: split for split in (TRAIN, VALIDATION, TEST)}
CLIP_SEED = 4000
