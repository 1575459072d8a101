"""Arguments of `seginfer check`, `build` and `cache`."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_command, batches, file_path, number, positive, sizes

_CHECK_HELP = """\
Uses TensorRT if it and a GPU are available, else TensorRT for RTX, which needs neither GPU nor driver:
  pip install 'seginfer[check]'
The engine is not kept. To keep one, run `seginfer build` on the GPU. To compare it with PyTorch, run `seginfer parity`.

exit codes:
  0  all files are supported
  1  a file is unsupported
  2  a file could not be checked
  3  a file needs plugins: TensorRT documents an operator of it (RoiAlign, NonZero, DeformConv, NonMaxSuppression),
     but the plugin or kernel is missing here
"""

_BUILD_HELP = """\
The precision comes from the .onnx file (`seginfer export --precision fp16`). The engine is read back after the build,
and rejected if it computes in another type.

Without -o, the engine goes into the cache. `--backend tensorrt` and Segmenter.open(backend="tensorrt", engine=...) find
it there by the same options. A cached engine is not built again.

A single fixed shape is fastest. Several batch sizes or image sizes become one profile each. A range becomes one
profile for all sizes in between.
"""

_CACHE_HELP = """\
The cache folder is $SEGINFER_CACHE, else $XDG_CACHE_HOME/seginfer, else ~/.cache/seginfer. Engines stay there until
you clear them. Other files in the folder are never touched.
"""


def add_check(commands: Any) -> None:
    command = add_command(
        commands,
        "check",
        "seginfer._cli.check:check_files",
        "check whether NVIDIA's TensorRT can build model files, and show which nodes it rejects",
        "seginfer check pitch.onnx\n  seginfer check *.onnx --json | jq '.reports[] | [.path, .status, .kernels]'",
        _CHECK_HELP,
    )
    command.add_argument(
        "models", type=file_path, nargs="+", metavar="MODEL", help=".onnx file, with or without a ModelSpec"
    )
    command.add_argument(
        "--timeout", type=positive, default=900, help="time limit per file in seconds (default: %(default)s)"
    )


def add_build(commands: Any) -> None:
    command = add_command(
        commands,
        "build",
        "seginfer._cli.build:build",
        "build a verified TensorRT engine for the GPU of this machine",
        "seginfer build pitch.onnx\n"
        "  seginfer build pitch.onnx -o pitch.engine --batch 1,4\n"
        "  seginfer build road.onnx --batch 1-8 --workspace-mb 1024\n"
        "  seginfer build any_size.onnx --size 512x1024,1024x2048",
        _BUILD_HELP,
    )
    command.add_argument("model", type=file_path, help=".onnx file with a ModelSpec")
    command.add_argument("-o", "--output", type=file_path, help="engine file to write (default: the cache)")
    command.add_argument(
        "--batch",
        type=batches,
        default=[(1, 1, 1)],
        metavar="N[,N...]",
        help="batch sizes: 1, or several like 1,4,16, or a range like 1-8 (default: 1)",
    )
    command.add_argument(
        "--size",
        type=sizes,
        default=[],
        metavar="HxW[,HxW...]",
        help="input sizes, height x width, for networks without a fixed size",
    )
    command.add_argument(
        "--workspace-mb", type=positive, help="maximum scratch memory per layer in MiB (default: all GPU memory)"
    )
    command.add_argument(
        "--optimization-level",
        type=number,
        default=3,
        help="0 builds fastest, 5 searches longest (default: %(default)s)",
    )
    command.add_argument(
        "--max-aux-streams",
        type=number,
        help="maximum number of auxiliary streams; 0 gives steady latency (default: the library's choice)",
    )
    command.add_argument("--dla-core", type=number, help="DLA core of a Jetson to run on (default: the GPU)")
    command.add_argument(
        "--no-cuda-graph",
        dest="cuda_graph",
        action="store_false",
        help="run frames call by call, for networks that TensorRT for RTX cannot build for CUDA graphs",
    )
    command.add_argument("--device", default="cuda", help="cuda or cuda:INDEX (default: %(default)s)")
    command.add_argument(
        "--library",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="auto is TensorRT if it and a GPU are available, else TensorRT for RTX (default: %(default)s)",
    )
    command.add_argument("--rebuild", action="store_true", help="build even if the engine is cached")


def add_cache(commands: Any) -> None:
    command = commands.add_parser(
        "cache",
        help="list or delete cached TensorRT engines",
        description="List or delete cached TensorRT engines.",
        epilog=f"examples:\n  seginfer cache list --json\n  seginfer cache clear --stale\n\n{_CACHE_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_command(
        actions,
        "list",
        "seginfer._cli.cache:list_cache",
        "list the cached engines: model, GPU, profiles, and whether they work here",
        "seginfer cache list\n  seginfer cache list --json | jq '.entries[] | [.model, .state, .reason]'",
        _CACHE_HELP,
    )
    clearing = add_command(
        actions,
        "clear",
        "seginfer._cli.cache:clear_cache",
        "delete the cached engines; exit code 1 if one is left because it is being built",
        "seginfer cache clear\n  seginfer cache clear --stale",
        _CACHE_HELP,
    )
    clearing.add_argument(
        "--stale",
        action="store_true",
        help="delete only engines that cannot work here: broken, or built for another version, GPU or driver",
    )
