"""The arguments of every command; handlers are named as strings and imported when they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._version import __version__
from ._arguments import add_device, add_folder, add_model, add_source, batches, command_of, number, positive, sizes

WORKSTATION = "seginfer.export"
"""Package of the workstation half. Its commands are named here and imported only when they run."""

_SPEC_HELP = """\
a minimal spec.json:
  {"schema": 1, "task": "binary",
   "input": {"name": "input_1", "size": [256, 256], "layout": "NHWC", "scale": 0.00392156862745098},
   "outputs": [{"name": "activation_10", "kind": "probabilities", "layout": "NHWC"}],
   "classes": {"names": ["background", "person"]}}
"""

_CHECK_HELP = """\
TensorRT is used where it and a GPU are there, TensorRT for RTX otherwise, which needs neither GPU nor driver:
  pip install 'seginfer[check]'
The engine is not kept. A supported file builds; on the GPU itself, `seginfer build` keeps the engine, and `seginfer
parity` compares it with PyTorch.

exit codes:
  0  every file is supported
  1  a file is unsupported
  2  a file could not be checked
  3  no file is unsupported, but one holds operators (RoiAlign, NonZero, DeformConv, NonMaxSuppression) that TensorRT
     is documented to build by plugins or kernels that are missing here
"""

_BUILD_HELP = """\
Precision lies in the .onnx file (`seginfer export --precision fp16`), and the engine must keep it: what was built is
read back, and an engine that computes in another type is refused. Without -o, the engine goes into the cache, where
`--backend tensorrt` and Segmenter.open(backend="tensorrt", engine=...) find it by these very options; one that is there
is not built again.

One fixed shape is the fastest. Several batches or sizes become one profile each, and a range becomes one profile that
takes all between.
"""

_CACHE_HELP = """\
The cache is the folder $SEGINFER_CACHE, else $XDG_CACHE_HOME/seginfer, else ~/.cache/seginfer. Engines stay there until
they are cleared; files that seginfer did not put there are never touched.
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
    _check(commands)
    _cache(commands)
    _build(commands)
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
    command.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        help="pictures, videos, folders to learn the ranges of fp16 from (default: every second one of --images, "
        "synthetic if --images are less than 8)",
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


def _check(commands: Any) -> None:
    command = command_of(
        commands,
        "check",
        "seginfer._cli.check:check_files",
        "parse and build model files with NVIDIA's TensorRT, and show what is in the way",
        "seginfer check pitch.onnx\n  seginfer check *.onnx --json | jq '.reports[] | [.path, .status, .kernels]'",
        _CHECK_HELP,
    )
    command.add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help=".onnx file, with a ModelSpec or without"
    )
    command.add_argument(
        "--timeout", type=positive, default=900, help="seconds after which a file is given up (default: %(default)s)"
    )


def _build(commands: Any) -> None:
    command = command_of(
        commands,
        "build",
        "seginfer._cli.build:build",
        "build a verified TensorRT engine of a model file, for the GPU of this machine",
        "seginfer build pitch.onnx\n"
        "  seginfer build pitch.onnx -o pitch.engine --batch 1,4\n"
        "  seginfer build road.onnx --batch 1-8 --workspace-mb 1024\n"
        "  seginfer build any_size.onnx --size 512x1024,1024x2048",
        _BUILD_HELP,
    )
    command.add_argument("model", type=Path, help=".onnx file with a ModelSpec inside")
    command.add_argument("-o", "--output", type=Path, help="the engine to write (default: into the cache)")
    command.add_argument(
        "--batch",
        type=batches,
        default=[(1, 1, 1)],
        metavar="N[,N...]",
        help="images per call: 1 | 1,4,16, several fixed numbers | 1-8, any from 1 to 8 (default: 1)",
    )
    command.add_argument(
        "--size", type=sizes, default=[], metavar="HxW[,HxW...]", help="height x width, for networks of any size"
    )
    command.add_argument(
        "--workspace-mb", type=positive, help="most scratch memory of one layer, MiB (default: the whole GPU)"
    )
    command.add_argument(
        "--optimization-level", type=number, default=3, help="0 builds fast, 5 searches longest (default: %(default)s)"
    )
    command.add_argument(
        "--max-aux-streams", type=number, help="streams beside the main one; 0 for steady latency (default: up to it)"
    )
    command.add_argument("--dla-core", type=number, help="run on this DLA core of a Jetson (default: the GPU)")
    command.add_argument("--device", default="cuda", help="cuda or cuda:<index> (default: %(default)s)")
    command.add_argument(
        "--library",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="auto is TensorRT where it and a GPU are there, else TensorRT for RTX (default: %(default)s)",
    )
    command.add_argument("--rebuild", action="store_true", help="build even if the cache has the engine")


def _cache(commands: Any) -> None:
    command = commands.add_parser(
        "cache",
        help="list or clear the TensorRT engines that were built here",
        description="List or clear the TensorRT engines that were built here.",
        epilog=f"examples:\n  seginfer cache list --json\n  seginfer cache clear --stale\n\n{_CACHE_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    command_of(
        actions,
        "list",
        "seginfer._cli.cache:list_cache",
        "show every engine: of which model, for what, and whether it can be used here",
        "seginfer cache list\n  seginfer cache list --json | jq '.entries[] | [.model, .state, .reason]'",
        _CACHE_HELP,
    )
    clearing = command_of(
        actions,
        "clear",
        "seginfer._cli.cache:clear_cache",
        "delete what seginfer has put into the cache; exit code 1 if an engine is left because it is being built",
        "seginfer cache clear\n  seginfer cache clear --stale",
        _CACHE_HELP,
    )
    clearing.add_argument(
        "--stale",
        action="store_true",
        help="delete only what is known to be useless here: broken, or of another version, GPU or driver",
    )


def _doctor(commands: Any) -> None:
    command_of(
        commands,
        "doctor",
        "seginfer._cli.doctor:doctor",
        "show what is installed here, what it allows, and how to get the rest",
        "seginfer doctor",
    )
