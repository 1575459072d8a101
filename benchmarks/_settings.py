"""Settings of a run, and the goals of its ratios."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Goal(NamedTuple):
    """Goal of a ratio. `sense` is ">=" or "<="."""

    sense: str
    value: float
    unit: str
    work: str

    def is_met(self, number: float) -> bool:
        """Return whether a number reaches the goal."""
        return number >= self.value if self.sense == ">=" else number <= self.value


_MASK = "mask of 19 x 128 x 256 logits at 1080 x 1920"
_BATCH = "batch of 512 x 1024 from a 1080 x 1920 image"

GOALS = {
    "mask_vs_torch": Goal(">=", 150, "x", f"{_MASK}, smooth: torch interpolate + argmax"),
    "mask_vs_cv2": Goal(">=", 60, "x", f"{_MASK}, smooth: cv2.resize per class + np.argmax"),
    "mask_noise_vs_torch": Goal(">=", 50, "x", f"{_MASK}, noise: torch interpolate + argmax"),
    "mask_noise_vs_cv2": Goal(">=", 20, "x", f"{_MASK}, noise: cv2.resize per class + np.argmax"),
    "preprocess_vs_numpy": Goal(">=", 6, "x", f"{_BATCH}: cv2.resize + NumPy"),
    "preprocess_vs_blob": Goal(">=", 2.5, "x", f"{_BATCH}: cv2.dnn.blobFromImage"),
    "preprocess_vs_memcpy": Goal("<=", 3, "x", f"{_BATCH}: memcpy that moves as many bytes"),
    "end_to_end_vs_model_api": Goal(">=", 15, "x", "image to mask, small network: OpenVINO Model API"),
    "end_to_end_vs_backend": Goal("<=", 1.05, "x", "image to mask, U-Net at 512 x 1024: its backend alone"),
    "call_overhead_us": Goal("<=", 40, "us", "overhead of a call on 64 x 64: its backend alone"),
    "steady_allocations": Goal("<=", 0, "blocks", "memory allocated per frame, with out="),
}


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        folder: gets the networks and pictures of the run.
        threads: cores that the process is bound to, and threads of every library.
        quick: use small pictures and short turns. A smoke test whose numbers are meaningless.
        use_peers: run peers that need an environment of their own.
        set_up_peers: make missing environments, which downloads packages.
    """

    folder: Path
    threads: int = 2
    quick: bool = False
    use_peers: bool = True
    set_up_peers: bool = True

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the camera's images."""
        return (270, 480) if self.quick else (1080, 1920)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Size of the networks' input."""
        return (128, 256) if self.quick else (512, 1024)

    @property
    def min_rounds(self) -> int:
        """Minimum number of turns of every contender."""
        return 1 if self.quick else 5

    def budget(self, seconds: float) -> float:
        """Return the duration of a comparison, in seconds."""
        return 0.0 if self.quick else seconds


def missing(module: str) -> str | None:
    """Return why a module cannot be imported, or None."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{module} cannot be imported ({error}); pip install 'seginfer[bench]'"
    return None
