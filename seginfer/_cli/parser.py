"""Argument parser of `seginfer`.

Handlers are named as strings, and imported when their command runs.
"""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from .._version import __version__
from .arguments import (
    add_command,
    add_device,
    add_folder,
    add_model,
    add_source,
    file_path,
    positive,
)
from .output import in_one_line
from .tensorrt_parser import add_build, add_cache, add_check

WORKSTATION = "seginfer.export"
"""Package of the workstation half, which only this module names."""

_SPEC_HELP = """\
a minimal spec.json:
  {"schema": 1, "task": "binary",
   "input": {"name": "input_1", "size": [256, 256], "layout": "NHWC", "scale": 0.00392156862745098},
   "outputs": [{"name": "activation_10", "kind": "probabilities", "layout": "NHWC"}],
   "classes": {"names": ["background", "person"]}}
"""


_RUN_HELP = """\
writes NAME.mask.png and NAME.overlay.jpg of images, and NAME.masks/frame_NNNNNN.png and NAME.overlay.webm of videos.
Folders are searched with the folders below them, and results have the same tree. A file that exists is replaced only
if seginfer wrote it, by the list .seginfer-outputs.jsonl in its folder. Exit code 1: some inputs failed, as listed.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with a message, which may repeat names of files."""
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        near = difflib.get_close_matches(choice[1], re.findall(r"[\w-]+", choice[2]), 1) if choice else []
        super().error(in_one_line(message) + (f"; did you mean {near[0]}?" if near else ""))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `seginfer`."""
    parser = _Parser(
        prog="seginfer",
        description="Take PyTorch segmentation models to devices: export, verify, run.",
        epilog="exit codes: 0 done, 1 partly done or not passed, 2 error, 3 needs plugins, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"seginfer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo(commands)
    _run(commands)
    _export(commands)
    _parity(commands)
    _attach(commands)
    _info(commands)
    add_check(commands)
    add_cache(commands)
    add_build(commands)
    _doctor(commands)
    return parser


def _demo(commands: Any) -> None:
    command = add_command(
        commands,
        "demo",
        "seginfer._cli.demo:demo",
        "export, certify and run the bundled soccer model",
        "seginfer demo\n  seginfer demo -o /tmp/demo --json",
    )
    command.set_defaults(workstation=WORKSTATION)
    add_folder(command, "seginfer-demo")
    add_device(command)


def _run(commands: Any) -> None:
    command = add_command(
        commands,
        "run",
        "seginfer._cli.run:run",
        "segment images, folders of images, and videos",
        "seginfer run pitch.onnx frame.jpg\n  seginfer run pitch.onnx frames/ clip.mp4 -o masks --no-overlay",
        _RUN_HELP,
    )
    add_model(command)
    command.add_argument("inputs", type=file_path, nargs="+", metavar="INPUT", help="image, video, or folder of both")
    add_folder(command, "seginfer-masks")
    command.add_argument("--no-overlay", action="store_true", help="write masks only")
    command.add_argument(
        "--no-verify", action="store_true", help="run a model file that is not the one its certificate was measured on"
    )
    command.add_argument("--alpha", type=float, default=0.5, help="opacity of the overlay, 0..1 (default: %(default)s)")
    add_device(command)


def _export(commands: Any) -> None:
    command = add_command(
        commands,
        "export",
        f"{WORKSTATION}._cli:export",
        "export a PyTorch model to a certified .onnx file",
        "seginfer export package.module:factory --weights w.safetensors --spec spec.json -o m.onnx\n"
        "  seginfer export torchvision.models.segmentation:fcn_resnet50 --kwargs \\\n"
        '      \'{"weights_backbone": null, "num_classes": 8}\' \\\n'
        "      --spec spec.json --images photos/ -o fcn.onnx\n"
        "  seginfer export program.pt2 --trust-code --spec spec.json -o m.onnx",
        _SPEC_HELP,
    )
    add_source(command)
    command.add_argument("--spec", type=file_path, required=True, help="ModelSpec as a JSON file")
    command.add_argument("-o", "--output", type=file_path, required=True, help=".onnx file to write")
    command.add_argument("--batch-size", type=positive, help="fixed batch size (default: any)")
    command.add_argument(
        "--keep-upsampling",
        action="store_true",
        help="keep a final bilinear upsampling in the graph (default: the mask step does it, with the same masks)",
    )
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32, or fp16 with layers in float32 where float16 would overflow (default: %(default)s)",
    )
    command.add_argument(
        "--calibration",
        type=file_path,
        nargs="+",
        default=[],
        help="images, videos and folders to learn the ranges of fp16 from (default: every second one of --images, or "
        "synthetic images if --images are fewer than 8)",
    )


def _parity(commands: Any) -> None:
    command = add_command(
        commands,
        "parity",
        f"{WORKSTATION}._cli:parity",
        "compare a model file or an engine with PyTorch on your images; exit code 1 if it fails",
        "seginfer parity m.onnx package.module:factory --weights w.safetensors --images photos/\n"
        "  seginfer parity m.engine package.module:factory --weights w.safetensors --images photos/\n"
        "  seginfer parity m.onnx package.module:factory --backend tensorrt --builds 5\n"
        "  seginfer parity foreign.onnx --reference package.module:predict --images photos/",
    )
    add_model(command)
    add_source(command, is_optional=True)
    add_device(command)
    command.add_argument(
        "--builds",
        type=positive,
        help="with --backend tensorrt: build this many engines and compare each, as builds differ",
    )


def _attach(commands: Any) -> None:
    command = add_command(
        commands,
        "attach",
        "seginfer._cli.info:attach",
        "add a ModelSpec to an existing .onnx file",
        "seginfer attach model.onnx spec.json -o out.onnx",
        _SPEC_HELP,
    )
    command.add_argument("model", type=file_path, help=".onnx file; `seginfer info` shows its tensor names")
    command.add_argument("spec", type=file_path, help="ModelSpec as a JSON file")
    command.add_argument("-o", "--output", type=file_path, required=True, help=".onnx file to write; may be the same")


def _info(commands: Any) -> None:
    command = add_command(
        commands,
        "info",
        "seginfer._cli.info:info",
        "show the tensors, spec and certificate of a model file, or the build report of an engine",
        "seginfer info pitch.onnx\n  seginfer info pitch.engine\n"
        "  seginfer info pitch.onnx --json | jq .spec > spec.json",
    )
    command.add_argument("model", type=file_path, help=".onnx file, or an engine from `seginfer build`")


def _doctor(commands: Any) -> None:
    add_command(
        commands,
        "doctor",
        "seginfer._cli.doctor:doctor",
        "show which features work here, and how to install the others",
        "seginfer doctor",
    )
