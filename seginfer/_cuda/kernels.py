"""Names and sources of the CUDA kernels.

Each is a template of cpp_bindings/ for one kind of input, so that it needs few registers and compiles in a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .kernel_args import DType, Filter, Source

_TYPES = {"float32": "float", "float16": "uint16", "uint8": "uint8", "int32": "int", "int64": "int64"}


class Template(NamedTuple):
    """A kernel's function template with its arguments, the header that has it, and its records' type."""

    header: str
    call: str
    record: str


def input_kernel(source: int, how: int, value: str, *, has_many_taps: bool) -> str:
    """Return the name of the kernel that converts images.

    Args:
        source: a `Source`.
        how: a `Filter`.
        value: dtype of the network's input.
        has_many_taps: whether an axis has another number of taps than two.
    """
    many = "_filtered" if how == Filter.PILLOW or (how == Filter.WEIGHTED and has_many_taps) else ""
    return f"seginfer_preprocess{many}_{Source(source).name.lower()}_{Filter(how).name.lower()}_{value}"


def output_kernel(step: str, kind: int, taps: int) -> str:
    """Return the name of the kernel for one step: "mask", or "maps" for confidences and margins.

    Args:
        step: as above.
        kind: a `DType`, of the network's output.
        taps: cells that a pixel reads along an axis. One for labels.
    """
    return f"seginfer_{step}_{DType(kind).name.lower()}_{taps}"


def _input_templates() -> Iterator[tuple[str, Template]]:
    combined = [(Filter.PICK, 1, False), (Filter.WEIGHTED, 2, False), (Filter.OPENCV, 2, False)]
    combined += [(Filter.WEIGHTED, 0, True), (Filter.PILLOW, 0, True)]
    for source in Source:
        for how, taps, has_many_taps in combined:
            for value in ("float32", "float16", "uint8"):
                if how == Filter.WEIGHTED and value == "uint8":
                    continue  # specs refuse it: weighted sums are no whole numbers
                name = input_kernel(source, how, value, has_many_taps=has_many_taps)
                first = f"Source::{source.name.lower()}, {how.name.title()}Filter".replace("Opencv", "OpenCV")
                arguments = f"{first}, {taps}, {_TYPES[value]}" if taps else f"{first}, {_TYPES[value]}"
                call = f"preprocess{'' if taps else '_filtered'}<{arguments}>"
                yield name, Template("preprocess_kernels.cuh", call, "PreprocessPixel")


def _output_templates() -> Iterator[tuple[str, Template]]:
    for step in ("mask", "maps"):
        floats = [(kind, taps) for kind in (DType.FLOAT32, DType.FLOAT16) for taps in (2, 3)]
        ids = [(kind, 1) for kind in (DType.UINT8, DType.INT32, DType.INT64)]
        for kind, taps in floats + (ids if step == "mask" else []):
            call = f"{step}<{taps}, {_TYPES[kind.name.lower()]}>"
            yield output_kernel(step, kind, taps), Template(f"{step}_kernels.cuh", call, "MaskPixel")


OVERLAY = "seginfer_overlay"
KERNELS: dict[str, Template] = {
    OVERLAY: Template("overlay_kernels.cuh", "overlay", "OverlayPixel"),
    **dict(_output_templates()),
    **dict(_input_templates()),
}
"""Every kernel by its name."""


def source_of(names: Iterable[str]) -> str:
    """Return the C++ source of some kernels."""
    chosen = {name: KERNELS[name] for name in names}
    includes = [f'#include "seginfer/kernels/{header}"' for header in sorted({one.header for one in chosen.values()})]
    kernels = [
        f'extern "C" SEG_KERNEL {name}(const {one.record}* records) {{ {one.call}(records); }}'
        for name, one in chosen.items()
    ]
    return "\n".join([*includes, "using namespace seginfer;", *kernels, ""])
