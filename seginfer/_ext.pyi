"""The native core of seginfer: both pixel steps on the CPU. Use it through seginfer, which checks more."""

from collections.abc import Sequence
from typing import Annotated, Any

from numpy.typing import NDArray

class Threads:
    """A pool of threads; one of size 1 never starts a thread."""

    def __init__(self, size: int) -> None: ...
    @property
    def size(self) -> int: ...

class Preprocessor:
    """Images of one size and format into the network input."""

    def __init__(
        self,
        *,
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        offset_yx: tuple[int, int],
        pixel_format: str,
        yuv_matrix: str,
        yuv_range: str,
        resampling: str,
        gain: tuple[float, float, float],
        bias: tuple[float, float, float],
        padding: tuple[float, float, float],
        is_bgr: bool,
        is_mirrored: bool,
    ) -> None: ...
    def fill(
        self,
        image: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
        out: Annotated[NDArray[Any], {"device": "cpu"}],
        threads: Threads,
    ) -> None: ...

class MaskDecoder:
    """Logits of one size into masks of images of one size."""

    def __init__(
        self,
        *,
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        offset_yx: tuple[int, int],
        whole_hw: tuple[int, int],
        corner_yx: tuple[int, int],
        logits_hw: tuple[int, int],
        visible: tuple[int, int, int, int],
        channels: int,
        decision: str,
        threshold: float,
        is_logits: bool,
        align_corners: bool,
        upsampling: int,
        upsampling_align_corners: bool,
        table: Sequence[int],
    ) -> None: ...
    def fill(
        self,
        logits: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
        mask: Annotated[NDArray[Any], {"device": "cpu"}],
        confidence: Annotated[NDArray[Any], {"device": "cpu"}] | None,
        margin: Annotated[NDArray[Any], {"device": "cpu"}] | None,
        threads: Threads,
    ) -> bool: ...

class LabelResampler:
    """Class ids of one size into masks of images of one size."""

    def __init__(
        self,
        *,
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
        resized_hw: tuple[int, int],
        offset_yx: tuple[int, int],
        whole_hw: tuple[int, int],
        corner_yx: tuple[int, int],
        labels_hw: tuple[int, int],
        visible: tuple[int, int, int, int],
    ) -> None: ...
    def fill(
        self,
        labels: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
        mask: Annotated[NDArray[Any], {"device": "cpu"}],
        threads: Threads,
    ) -> None: ...

def overlay(
    image: Annotated[NDArray[Any], {"device": "cpu", "writable": False}] | None,
    mask: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
    colors: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
    weight: int,
    out: Annotated[NDArray[Any], {"device": "cpu"}],
    threads: Threads,
) -> None: ...
def copy(
    source: Annotated[NDArray[Any], {"device": "cpu", "writable": False}],
    target: Annotated[NDArray[Any], {"device": "cpu"}],
    threads: Threads,
) -> None: ...
def targets() -> list[str]:
    """Instruction sets that this machine has, best last."""

def target() -> str:
    """The instruction set in use."""

def use_target(name: str) -> None: ...
