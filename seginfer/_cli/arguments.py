"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def command_of(commands: Any, name: str, handler: str, summary: str, examples: str, more: str = "") -> Any:
    """Add a command, whose handler is imported when it runs."""
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n  {examples}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    command.add_argument("-v", "--verbose", action="store_true", help="log what runs, and why")
    command.set_defaults(handler=handler)
    return command


def add_model(command: Any) -> None:
    """Add the model that a command takes."""
    command.add_argument(
        "model", type=Path, help=".onnx file with a ModelSpec inside, or an engine of `seginfer build`"
    )


def add_folder(command: Any, default: str) -> None:
    """Add the folder that a command writes into."""
    command.add_argument("-o", "--output", type=Path, default=Path(default), help="folder (default: %(default)s)")


def add_source(command: Any) -> None:
    """Add the module that a model is compared with or made from, and the images."""
    command.add_argument("source", help="package.module:factory, or a .pt2 exported program; either one runs code")
    command.add_argument("--weights", type=Path, help=".safetensors, or a checkpoint that loads with weights_only=True")
    command.add_argument("--kwargs", type=json_object, default={}, help="arguments of the factory, as a JSON object")
    command.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="pictures, videos, folders (default: synthetic)",
    )
    command.add_argument("--max-images", type=positive, default=32, help="compare on at most this many (default: 32)")


def add_device(command: Any) -> None:
    """Add what runs the network, and where."""
    command.add_argument(
        "--backend",
        default="auto",
        help="onnxruntime, tensorrt, tensorrt_rtx, or auto: ONNX Runtime for an .onnx file (default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: %(default)s)")
    command.add_argument("--threads", type=positive, help="CPU threads of the network (default: every core)")


def positive(text: str) -> int:
    """Return a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, got {text!r}")
    return int(text)


def number(text: str) -> int:
    """Return a number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return int(text)


def batches(text: str) -> list[tuple[int, int, int]]:
    """Read "1,4" as two fixed batches, and "1-8" as a range, of which the largest is the likeliest."""
    batches = []
    for part in text.split(","):
        least, _, most = part.partition("-")
        if not least.isdecimal() or not (most or least).isdecimal() or part.endswith("-"):
            raise argparse.ArgumentTypeError(f"must be a number, numbers as 1,4, or a range as 1-8, got {text!r}")
        batches.append((int(least), int(most or least), int(most or least)))
    return batches


def sizes(text: str) -> list[tuple[int, int]]:
    """Return (height, width) pairs, from "512x1024,1024x2048"."""
    sizes = []
    for part in text.split(","):
        height, _, width = part.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be height x width as 512x1024, got {text!r}")
        sizes.append((int(height), int(width)))
    return sizes


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"num_classes\": 8}}': {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r}")
    return value
