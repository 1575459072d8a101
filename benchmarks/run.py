"""Run the CPU benchmarks and write one JSON file."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _errors import CheckError, PeerUnavailableError
from _machine import bind_to_cores, commit_record, compiled_modules, machine_record, set_threads, versions_record

EXAMPLES = """examples:
  python benchmarks/run.py --json benchmarks/results/cpu-2core.json
  python benchmarks/run.py --json /tmp/mask.json --only mask --only preprocess
  python benchmarks/run.py --json /tmp/quick.json --quick --no-peers   # a smoke test, with meaningless numbers
"""
STAGES = ("mask", "preprocess", "overhead", "memory", "camera", "end_to_end")
SCHEMA = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    1 if a result is wrong. Nothing is written then.
    """
    args = _parser().parse_args(argv)
    bind_to_cores(args.threads)  # before NumPy and torch start threads
    try:
        results = _measure(args)
    except (CheckError, PeerUnavailableError) as error:
        sys.stderr.write(f"run.py: {error}\n")
        return 1
    path: Path = args.json
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    written.replace(path)
    _say_ratios(results)
    return 0


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from _settings import GOALS, Settings
    from _timing import METHOD

    start, machine = time.monotonic(), machine_record()
    threads = set_threads(args.threads)
    ratios: dict[str, float | None] = dict.fromkeys(GOALS)
    skipped, results = dict.fromkeys(GOALS, "its stage was not requested"), {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), args.threads, args.quick, not args.no_peers, not args.no_setup)
        for name in args.only or STAGES:
            _say(f"[{time.monotonic() - start:4.0f} s] {name} ...")
            stage = importlib.import_module(name).measure(settings)
            ratios.update(stage.ratios)
            results[name] = stage.to_json()
            for ratio in stage.ratios:
                skipped.pop(ratio)
            skipped.update(stage.skipped)
    return {
        "schema": SCHEMA,
        "quick": args.quick,
        "machine": machine,
        "versions": versions_record(),
        "commit": commit_record(),
        "compiled": compiled_modules(),
        "threads": threads,
        "method": METHOD,
        "elapsed_s": round(time.monotonic() - start, 1),
        "ratios": ratios,
        "goals": {name: goal._asdict() for name, goal in GOALS.items()},
        "skipped": skipped,
        "results": results,
    }


def _say_ratios(results: dict[str, Any]) -> None:
    from _settings import GOALS

    for name, number in results["ratios"].items():
        goal = GOALS[name]
        if number is None:
            _say(f"{name:26} -         skipped: {results['skipped'].get(name, 'no reason given')}")
        else:
            verdict = "met" if goal.is_met(number) else "missed"
            _say(f"{name:26} {number:<9.3g} goal {goal.sense} {goal.value:g} {goal.unit}: {verdict}")
    _say(f"done in {results['elapsed_s']:.0f} s")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="output file")
    parser.add_argument("--only", action="append", choices=STAGES, help="run this stage only; repeatable")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="cores, and threads of every library (default: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="small pictures, few repeats: seconds instead of minutes")
    parser.add_argument("--no-peers", action="store_true", help="skip peers that need an environment of their own")
    parser.add_argument("--no-setup", action="store_true", help="use these environments, but do not download them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
