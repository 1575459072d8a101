"""Predict the parts of a frame on a GPU, and print them beside measurements.

A prediction is arithmetic: bytes that a step must move over the bandwidth of the data sheet, or instructions that a
kernel issues over the issue rate of the data sheet, whichever takes longer. Nothing is fitted to a measurement.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = """examples:
  python benchmarks/gpu_model.py h200
  python benchmarks/gpu_model.py "agx orin" --batch 4
  python benchmarks/gpu_model.py h200 --kernels first-contact/kernels.json --frames first-contact/gpu.json
"""
COUNTS = Path(__file__).resolve().parent.parent / "tests" / "sass_counts.json"

IMAGE_HW, INPUT_HW, LOGITS_HW, CLASSES = (1080, 1920), (512, 1024), (128, 256), 19
"""Of cuda_kernels.py."""
LAUNCH_US = 2.5
"""Of a kernel inside a CUDA graph, with the gap before it: a rule of thumb, no data sheet has it."""
BANDWIDTH, ISSUE = 0.85, 0.6
"""Shares of the data sheet that good kernels reach: of memory and bus, and of instructions. Rules of thumb, too."""
WARP = 32


class Sheet(NamedTuple):
    """Numbers of a data sheet."""

    name: str
    memory_gb_per_s: float
    multiprocessors: int
    boost_ghz: float
    bus_gb_per_s: float
    """Of one direction. 0 where CPU and GPU share memory, so that a copy reads and writes it."""

    @property
    def instructions_per_us(self) -> float:
        """Thread instructions per microsecond: four schedulers issue one for a warp each cycle."""
        return self.multiprocessors * 4 * WARP * self.boost_ghz * 1e3


SHEETS = {
    sheet.name.lower(): sheet
    for sheet in (
        Sheet("A100 SXM 80 GB", 2039, 108, 1.41, 31.5),
        Sheet("H100 SXM", 3350, 132, 1.98, 63),
        Sheet("H200", 4800, 132, 1.98, 63),
        Sheet("L4", 300, 58, 2.04, 31.5),
        Sheet("RTX 3090", 936, 82, 1.70, 31.5),
        Sheet("RTX 4090", 1008, 128, 2.52, 31.5),
        Sheet("RTX 5090", 1792, 170, 2.41, 63),
        Sheet("AGX Orin 64 GB", 204.8, 16, 1.30, 0),
        Sheet("Orin NX 16 GB", 102.4, 8, 0.918, 0),
        Sheet("AGX Thor", 273, 20, 1.575, 0),
    )
}


class Kernel(NamedTuple):
    """Work of one kernel for one frame."""

    name: str
    """As in the record of cuda_kernels.py."""
    moved_bytes: float
    instructions: float

    def us(self, sheet: Sheet) -> float:
        """Return the predicted time in microseconds, without its launch."""
        moving = self.moved_bytes / (BANDWIDTH * sheet.memory_gb_per_s * 1e3)
        return max(moving, self.instructions / (ISSUE * sheet.instructions_per_us))


# Instructions per pixel of the step's output, by name in tests/sass_counts.json. Counted from the machine code of sm_90
# at commit afdd33f; labels count with the mask. Where that file is, its numbers replace these.
_PER_PIXEL = {
    "preprocess, opencv, float32, rgb": 138.0,
    "preprocess, opencv, float16, rgb": 140.0,
    "preprocess, pillow, float32, rgb": 320.0,
    "mask, smooth, float32": 51.0,
    "mask, smooth, float16": 51.0,
    "confidence, float32": 1060.0,
    "confidence, float16": 1060.0,
    "overlay": 38.0,
}


def instructions_per_pixel(counts: Path = COUNTS) -> dict[str, float]:
    """Return counted instructions per pixel, by step."""
    found = json.loads(counts.read_text(encoding="utf-8"))["per_pixel"] if counts.is_file() else {}
    return {name: float(found.get(name, count)) for name, count in _PER_PIXEL.items()}


def kernels(counts: Path = COUNTS) -> list[Kernel]:
    """Return the kernels of cuda_kernels.py."""
    per_pixel = instructions_per_pixel(counts)
    image, inputs, cells = (height * width for height, width in (IMAGE_HW, INPUT_HW, LOGITS_HW))
    found = []
    for name, count in per_pixel.items():
        step, *words = name.split(", ")
        size = 2 if "float16" in words else 4
        logits = cells * CLASSES * size
        moved, pixels = {
            "preprocess": (3 * image + 3 * inputs * size, inputs),
            "mask": (logits + image, image),
            "confidence": (logits + 4 * image, image),
            "overlay": (7 * image, image),
        }[step]
        label = ", ".join([step, *(word for word in words if word not in ("rgb", "smooth"))])
        found.append(Kernel(label, moved, count * pixels))
    return found


def frame(sheet: Sheet, batch: int, counts: Path = COUNTS) -> dict[str, float]:
    """Return the predicted parts of a batch beside the network, in microseconds.

    The batch is one of 1080p images with a float32 network at 512 x 1024 and 19 classes.
    """
    by_name = {kernel.name: kernel for kernel in kernels(counts)}
    steps = [by_name["preprocess, opencv, float32"], by_name["mask, float32"]]
    pixels = IMAGE_HW[0] * IMAGE_HW[1] * batch
    rate = BANDWIDTH * (sheet.bus_gb_per_s or sheet.memory_gb_per_s / 2) * 1e3
    parts = {"upload": 3 * pixels / rate}
    parts |= {step.name.split(",")[0]: step.us(sheet) * batch for step in steps}
    parts |= {"download": pixels / rate, "launches": LAUNCH_US * (len(steps) + 4)}  # two copies and two memsets
    return {**parts, "sum": sum(parts.values())}


def find_sheet(text: str) -> Sheet:
    """Return the data sheet whose name has these words.

    Raises:
        SystemExit: if there is none, or several.
    """
    found = [sheet for name, sheet in SHEETS.items() if all(word in name for word in text.lower().split())]
    if len(found) != 1:
        raise SystemExit(f"expected one of {', '.join(sheet.name for sheet in SHEETS.values())}; got {text!r}")
    return found[0]


def kernel_rows(sheet: Sheet, record: dict[str, Any] | None) -> list[tuple[str, float, float | None]]:
    """Return (kernel, predicted, measured) in microseconds per frame. A measurement that is missing is None."""
    measured = {
        kernel["name"]: 1e3 * kernel["time_ms"] / record["frames"]
        for kernel in (record or {}).get("kernels", ())
        if record and "time_ms" in kernel
    }
    for name in [name for name in measured if name.startswith("mask, ")]:
        measured[name] += measured.get(name.replace("mask", "label"), 0)  # older records have a kernel for labels
    return [(kernel.name, kernel.us(sheet), measured.get(kernel.name)) for kernel in kernels()]


def measured_us(record: dict[str, Any] | None, batch: int) -> float | None:
    """Return the measured time of a frame beside its network. It is that of the best backend in float32."""
    found = [
        1e3 * (result["end_to_end"]["median_ms"] - result["network"]["median_ms"])
        for case in (record or {}).get("cases", ())
        if case["batch"] == batch and case["precision"] == "fp32" and tuple(case["input_hw"]) == INPUT_HW
        for result in case["backends"].values()
        if result.get("end_to_end") and "median_ms" in result.get("network", {})
    ]
    return min(found, default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the predictions, and the measurements of records."""
    args = _parser().parse_args(argv)
    sheet = find_sheet(args.gpu)
    measured_kernels, measured_frames = (path and json.loads(path.read_text()) for path in (args.kernels, args.frames))
    rows = [("us per frame", "predicted", "measured")]
    rows += [(name, f"{us:.1f}", _number(measured)) for name, us, measured in kernel_rows(sheet, measured_kernels)]
    total = measured_us(measured_frames, args.batch)
    rows += [("", "", ""), (f"us per batch of {args.batch}, beside the network", "predicted", "measured")]
    parts = frame(sheet, args.batch)
    rows += [(name, f"{us:.1f}", _number(total) if name == "sum" else "") for name, us in parts.items()]
    sys.stdout.write(f"{sheet.name}, from its data sheet; host copies and Python are not predicted\n")
    for name, predicted, measured in rows:
        sys.stdout.write(f"{name:44}{predicted:>12}{measured:>12}".rstrip() + "\n")
    return 0


def _number(us: float | None) -> str:
    return "-" if us is None else f"{us:.1f}"


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=style)
    names = ", ".join(sheet.name for sheet in SHEETS.values())
    parser.add_argument("gpu", help=f"words of one of: {names}")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default: 1)")
    parser.add_argument("--kernels", type=Path, metavar="FILE", help="record of cuda_kernels.py")
    parser.add_argument("--frames", type=Path, metavar="FILE", help="record of gpu.py")
    return parser


if __name__ == "__main__":
    sys.exit(main())
