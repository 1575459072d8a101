"""The arguments of every command; handlers are named as strings and imported when they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._version import __version__
from .arguments import add_device, add_folder, add_model, add_source, command_of, positive
from .tensorrt_parser import add_build, add_cache, add_check

WORKSTATION = "seginfer.export"
"""Package of the workstation half. Its commands are named here and imported only when they run."""

_SPEC_HELP = """\
a minimal spec.json:
  {"schema": 1, "task": "binary",
   "input": {"name": "input_1", "size": [256, 256], "layout": "NHWC", "scale": 0.00392156862745098},
   "outputs": [{"name": "activation_10", "kind": "probabilities", "layout": "NHWC"}],
   "classes": {"names": ["background", "person"]}}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `seginfer`."""
    parser = argparse.ArgumentParser(
        prog="seginfer",
        description="Take PyTorch segmentation models to devices: export, prove, run.",
        epilog="exit codes: 0 done, 1 done in part or not passed, 2 error, 3 needs plugins, 130 interrupted",
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
    command = command_of(
        commands,
        "demo",
        "seginfer._cli.demo:demo",
        "export, certify and run the soccer-field model that comes with the package",
        "seginfer demo\n  seginfer demo -o /tmp/demo --json",
    )
    command.set_defaults(workstation=WORKSTATION)
    add_folder(command, "seginfer-demo")
    add_device(command)


def _run(commands: Any) -> None:
    command = command_of(
        commands,
        "run",
        "seginfer._cli.run:run",
        "segment pictures, folders of pictures and videos",
        "seginfer run pitch.onnx frame.jpg\n  seginfer run pitch.onnx frames/ clip.mp4 -o masks --no-overlay",
    )
    add_model(command)
    command.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="picture, video, or folder of them")
    add_folder(command, "seginfer-masks")
    command.add_argument("--no-overlay", action="store_true", help="write the masks only")
    command.add_argument("--alpha", type=float, default=0.5, help="weight of the overlay, 0..1 (default: 0.5)")
    add_device(command)


def _export(commands: Any) -> None:
    command = command_of(
        commands,
        "export",
        f"{WORKSTATION}._cli:export",
        "export a PyTorch model to a certified .onnx file",
        "seginfer export package.module:factory --weights w.safetensors --spec spec.json -o m.onnx\n"
        "  seginfer export torchvision.models.segmentation:fcn_resnet50 --kwargs \\\n"
        '      \'{"weights_backbone": null, "num_classes": 8}\' \\\n'
        "      --spec spec.json --images photos/ -o fcn.onnx\n"
        "  seginfer export program.pt2 --spec spec.json -o m.onnx",
        _SPEC_HELP,
    )
    add_source(command)
    command.add_argument("--spec", type=Path, required=True, help="ModelSpec as JSON")
    command.add_argument("-o", "--output", type=Path, required=True, help="the .onnx file to write")
    command.add_argument("--batch-size", type=positive, help="images per batch (default: any number)")
    command.add_argument(
        "--keep-upsampling",
        action="store_true",
        help="keep a final bilinear upsampling in the graph (default: the mask step does it, with the same result)",
    )
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32, or fp16: half the size; layers that would overflow stay in float32 (default: %(default)s)",
    )


def _parity(commands: Any) -> None:
    command = command_of(
        commands,
        "parity",
        f"{WORKSTATION}._cli:parity",
        "compare a model file or an engine with PyTorch on your pictures; exit code 1 if it fails",
        "seginfer parity m.onnx package.module:factory --weights w.safetensors --images photos/\n"
        "  seginfer parity m.engine package.module:factory --weights w.safetensors --images photos/\n"
        "  seginfer parity m.onnx package.module:factory --backend tensorrt --builds 5",
    )
    add_model(command)
    add_source(command)
    add_device(command)
    command.add_argument(
        "--builds",
        type=positive,
        help="with --backend tensorrt: build the engine this often and compare each, since every build chooses anew",
    )


def _attach(commands: Any) -> None:
    command = command_of(
        commands,
        "attach",
        "seginfer._cli.info:attach",
        "put a ModelSpec into an .onnx file that somebody else made",
        "seginfer attach model.onnx spec.json -o out.onnx",
        _SPEC_HELP,
    )
    command.add_argument("model", type=Path, help=".onnx file; `seginfer info` shows its tensor names")
    command.add_argument("spec", type=Path, help="ModelSpec as JSON")
    command.add_argument("-o", "--output", type=Path, required=True, help="the .onnx file to write; may be the same")


def _info(commands: Any) -> None:
    command = command_of(
        commands,
        "info",
        "seginfer._cli.info:info",
        "show what a model file says: tensors, spec, certificate; of an engine, what was built",
        "seginfer info pitch.onnx\n  seginfer info pitch.engine\n"
        "  seginfer info pitch.onnx --json | jq .spec > spec.json",
    )
    command.add_argument("model", type=Path, help=".onnx file, or an engine of `seginfer build`")


def _doctor(commands: Any) -> None:
    command_of(
        commands,
        "doctor",
        "seginfer._cli.doctor:doctor",
        "show what is installed here, what it allows, and how to get the rest",
        "seginfer doctor",
    )
