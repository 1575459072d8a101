"""Measure whole frames on a GPU and write one JSON file.

Every backend is compared with its network alone and with scripts, from 1080p uint8 images to 1080p masks, in under ten
minutes. Without a GPU, --device cpu runs the same cases on the CPU as a smoke test.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _gpu.kept import Kept, find_wrong
from _machine import commit_record, compiled_modules, machine_record

from seginfer import BackendUnavailableError, SegInferError
from seginfer._errors import MissingDependencyError
from seginfer._system.atomic import make_folder
from seginfer._system.driver import find_gpu

if TYPE_CHECKING:
    from _gpu.networks import BenchNetwork
    from _gpu.run import Run

EXAMPLES = """examples:
  python benchmarks/gpu.py --json benchmarks/results/h100.json
  python benchmarks/gpu.py --json orin.json --backends tensorrt torch --networks unet fastfcn --minutes 30
  python benchmarks/gpu.py --json /tmp/quick.json --quick                # a smoke test, with meaningless numbers
  python benchmarks/gpu.py --json /tmp/cpu.json --quick --device cpu     # the same without a GPU

No work begins after --minutes. The file is written after every case, and lists what was skipped, failed or wrong with a
reason. Ctrl-C ends a run and keeps the cases before. Engines stay in the cache, so a second run has time to measure the
cases whose engines the first run built.
"""
SCHEMA = 2
BACKENDS = ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx")
PEERS = ("eager", "compile", "onnxruntime")
NETWORKS = ("unet", "fastfcn")
SIZES = {"512x1024": (512, 1024), "1024x2048": (1024, 2048)}
PRECISIONS = ("fp32", "fp16")
BATCHES = (1, 4, 16)
IMAGE_HW = (1080, 1920)
QUICK_IMAGE_HW, QUICK_SHRINKS, QUICK_BATCHES = (135, 240), 16, (1, 2)
KERNEL_FRAMES = 128

ON_CPU = "THIS IS NOT A GPU: a smoke test with the host pipeline and CPU backends, whose numbers apply to no GPU"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0 if everything was measured, 1 if a result is wrong or the file cannot be written, 2 if there is nothing to
    measure, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    args.batches = args.batches or (QUICK_BATCHES if args.quick else BATCHES)
    record = Kept(args.json)
    try:
        return _run(args, record)
    except KeyboardInterrupt:
        return _failed(130, f"stopped; {record.in_words()}")


def _run(args: argparse.Namespace, record: Kept) -> int:
    try:
        if args.device == "cuda":
            find_gpu()
        importlib.import_module("seginfer.export")
        make_folder(args.json.parent)
        _measure(args, record)
    except BackendUnavailableError as error:  # no GPU. The record lists other missing parts.
        return _failed(2, f"nothing to measure: {error}; or run the same cases on the CPU with --device cpu")
    except (MissingDependencyError, NothingToMeasureError) as error:
        return _failed(2, f"nothing to measure: {error}")
    except SegInferError as error:
        return _failed(1, str(error))
    wrong = list(find_wrong(record))
    for reason in wrong:
        _failed(1, f"a result is wrong: {reason}")
    _say(f"wrote {args.json} in {record['elapsed_s']:.0f} s")
    return int(bool(wrong))


class NothingToMeasureError(Exception):
    """No backend is available. The message has the reason for each."""


def _measure(args: argparse.Namespace, record: Kept) -> None:
    from _gpu.cases import GOAL, find_missing
    from _gpu.machine import all_versions, gpu_record
    from _gpu.peers import TF32, use_no_tf32
    from _gpu.run import Run
    from _gpu.turns import METHOD, QUICK, TURNS

    start, machine = time.monotonic(), machine_record()
    turns = QUICK if args.quick else TURNS
    backends, peers = tuple(args.backends), tuple(args.peers)
    run = Run(args.device, turns, args.quick, start + 60 * args.minutes, backends, peers, _say)
    find_missing(run)
    for what, reason in run.missing.items():
        _say(f"{what} is missing: {reason}")
    if all(f"backend {name}" in run.missing for name in backends):
        raise NothingToMeasureError("; ".join(f"{name}: {run.missing[f'backend {name}']}" for name in backends))
    use_no_tf32()
    record.keep(
        schema=SCHEMA,
        kind="gpu.py",
        is_complete=False,
        device=args.device,
        warning=ON_CPU if args.device == "cpu" else None,
        quick=args.quick,
        gpu=None if args.device == "cpu" else gpu_record(),
        machine=machine,
        versions=all_versions(),
        commit=commit_record(),
        compiled=compiled_modules(),
        method=METHOD,
        turns=asdict(turns),
        tf32=TF32,
        goal={"end_to_end_over_network": GOAL, "sense": "<="},
        image_hw=_image_hw(args),
        minutes=args.minutes,
        requested={name: getattr(args, name) for name in ("networks", "sizes", "precisions", "batches")},
        missing={**_left_out(args), **run.missing},
        networks=[],
        cases=[],
        kernels={},
    )
    record.keep(kernels=_kernels(args))
    _all_cases(args, run, record)
    missing = {**_left_out(args), **run.missing}
    record.keep(is_complete=True, missing=missing, elapsed_s=round(time.monotonic() - start, 1))


def _all_cases(args: argparse.Namespace, run: Run, record: Kept) -> None:
    """Measure all cases, small ones first.

    If time runs out, the large ones are skipped.
    """
    from _gpu.run import or_reason

    for name in args.networks:
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                network = or_reason(lambda: _one_network(args, run, name, size, Path(folder), record))  # noqa: B023
            record["networks"].append({"name": name, "input_hw": _input_hw(args, size), **network})
            record.keep()


def _one_network(
    args: argparse.Namespace, run: Run, name: str, size: str, folder: Path, record: Kept
) -> dict[str, Any]:
    from _gpu.backends import Case
    from _gpu.cases import measure_case
    from _gpu.check import facts_of, frames_for
    from _gpu.networks import make_network
    from pictures import picture

    run.check_time()
    image_hw = _image_hw(args)
    _say(f"exporting {name} at {size} ...")
    network: BenchNetwork = make_network(
        name, _input_hw(args, size), folder, picture(image_hw), args.precisions, thin=args.quick
    )
    frames = frames_for(network, image_hw, max(args.batches))
    for precision in args.precisions:
        for batch in args.batches:
            case = Case(network, precision, batch, args.device)
            _say(f"{case} ...")
            record["cases"].append(measure_case(case, frames, run))
            record.keep()
    return {**network.record(), **facts_of(frames)}


def _kernels(args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of cuda_kernels.py."""
    if args.device == "cpu":
        return {"skipped": "the kernels are measured on a GPU"}
    import cuda_kernels
    from _gpu.run import or_reason

    _say("kernels ...")
    return or_reason(lambda: cuda_kernels.measure(2 if args.quick else KERNEL_FRAMES))


def _left_out(args: argparse.Namespace) -> dict[str, str]:
    every = (("backend", BACKENDS, args.backends), ("peer", PEERS, args.peers))
    return {
        f"{kind} {name}": f"left out by --{kind}s" for kind, all_, taken in every for name in all_ if name not in taken
    }


def _image_hw(args: argparse.Namespace) -> tuple[int, int]:
    return QUICK_IMAGE_HW if args.quick else IMAGE_HW


def _input_hw(args: argparse.Namespace, size: str) -> tuple[int, int]:
    height, width = SIZES[size]
    return (height // QUICK_SHRINKS, width // QUICK_SHRINKS) if args.quick else (height, width)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _failed(code: int, line: str) -> int:
    _say(f"gpu.py: {line}")
    return code


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=style)
    add = parser.add_argument
    add("--json", type=Path, required=True, metavar="FILE", help="output file")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="CUDA_VISIBLE_DEVICES chooses among several GPUs")
    add("--quick", action="store_true", help="tiny networks and pictures, few calls: seconds instead of minutes")
    add("--minutes", type=float, default=9.0, metavar="N", help="begin no work after this long (default: 9)")
    for name, choices, default, what in (
        ("--backends", BACKENDS, BACKENDS, "backends of the network"),
        ("--peers", PEERS, PEERS[:1], "scripts to compare with; compile takes up to a minute per case"),
        ("--networks", NETWORKS, NETWORKS[:1], "architectures of the zoo"),
        ("--sizes", tuple(SIZES), tuple(SIZES), "input sizes of the networks; a sixteenth with --quick"),
        ("--precisions", PRECISIONS, PRECISIONS, "precisions of the files"),
    ):
        add(name, nargs="+", choices=choices, default=default, help=f"{what} (default: {' '.join(default)})")
    add("--batches", nargs="+", type=_count, metavar="N", help="frames at once (default: 1 4 16; --quick: 1 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
