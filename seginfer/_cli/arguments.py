"""Command-line arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_command(commands: Any, name: str, handler: str, summary: str, examples: str, more: str = "") -> Any:
    """Add a command with `--json` and `--verbose`.

    Args:
        commands: the subparsers of `argparse`.
        name: name of the command.
        handler: "package.module:function", imported when the command runs.
        summary: one line of help, in lower case and without a full stop.
        examples: command lines, each but the first indented by two spaces.
        more: text below the examples.
    """
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n  {examples}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    command.add_argument("-v", "--verbose", action="store_true", help="log decisions to standard error")
    command.set_defaults(handler=handler)
    return command


def add_model(command: Any) -> None:
    """Add the model file."""
    command.add_argument(
        "model", type=file_path, help=".onnx file with a ModelSpec, or an engine from `seginfer build`"
    )


def add_folder(command: Any, default: str) -> None:
    """Add the output folder."""
    command.add_argument(
        "-o", "--output", type=file_path, default=Path(default), help="output folder (default: %(default)s)"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace files in the output folder that seginfer did not write"
    )


def add_source(command: Any, *, is_optional: bool = False) -> None:
    """Add the PyTorch module, the user's pipeline, and the images with their labels."""
    command.add_argument(
        "source",
        nargs="?" if is_optional else None,
        help="package.module:factory, or a .pt2 exported program; both run code"
        + ("; it may be left out with --reference" if is_optional else ""),
    )
    command.add_argument("--trust-code", action="store_true", help="load a .pt2 file, which may run code that is in it")
    command.add_argument(
        "--weights",
        type=file_path,
        help=".safetensors file, or a checkpoint that torch.load reads with weights_only=True",
    )
    command.add_argument("--weights-key", help="key of the state dict in a checkpoint that holds several, such as ema")
    command.add_argument(
        "--kwargs", type=json_object, default={}, help="keyword arguments of the factory, as a JSON object"
    )
    command.add_argument(
        "--images",
        type=file_path,
        nargs="+",
        default=[],
        help="images, videos and folders to compare on (default: synthetic images)",
    )
    command.add_argument(
        "--reference",
        metavar="MODULE:FUNCTION",
        help="your own pipeline to compare with, from one uint8 RGB image (H, W, 3) to labels (H, W), or to logits or "
        "probabilities (C, H, W), at the size of the image; it runs code (default: the spec is believed)",
    )
    command.add_argument(
        "--labels",
        type=file_path,
        metavar="DIR",
        help="folder with one PNG of class ids for an image, NAME.png or NAME_mask.png; a poor mean IoU is explained",
    )
    command.add_argument(
        "--max-images", type=positive, default=32, help="maximum number of images to compare on (default: %(default)s)"
    )


def add_device(command: Any) -> None:
    """Add backend, device and threads."""
    command.add_argument(
        "--backend",
        default="auto",
        help="onnxruntime, tensorrt, tensorrt_rtx, or auto: TensorRT for an engine, else ONNX Runtime "
        "(default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:INDEX (default: %(default)s)")
    command.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")


def file_path(text: str) -> Path:
    """Parse a path, which is not empty."""
    if not text:  # of an unset variable, and Path("") would be the current folder
        raise argparse.ArgumentTypeError("must not be empty; use . for the current folder")
    return Path(text)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def number(text: str) -> int:
    """Parse an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got {text!r}")
    return int(text)


def batches(text: str) -> list[tuple[int, int, int]]:
    """Parse batch sizes such as "1,4" or "1-8".

    Returns:
        (min, opt, max) images for each size or range. A range is tuned for its maximum.
    """
    batches = []
    for part in text.split(","):
        least, _, most = part.partition("-")
        if not least.isdecimal() or not (most or least).isdecimal() or part.endswith("-"):
            raise argparse.ArgumentTypeError(f"must be a number, numbers like 1,4, or a range like 1-8, got {text!r}")
        batches.append((int(least), int(most or least), int(most or least)))
    return batches


def sizes(text: str) -> list[tuple[int, int]]:
    """Parse "512x1024,1024x2048" as (height, width) pairs."""
    sizes = []
    for part in text.split(","):
        height, _, width = part.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH like 512x1024, got {text!r}")
        sizes.append((int(height), int(width)))
    return sizes


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object like '{{\"num_classes\": 8}}': {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r}")
    return value
