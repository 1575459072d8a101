"""Arguments of the commands that need TensorRT: check, build and cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import batches, command_of, number, positive, sizes

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


def add_check(commands: Any) -> None:
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


def add_build(commands: Any) -> None:
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


def add_cache(commands: Any) -> None:
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
