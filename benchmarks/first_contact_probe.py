"""Probe a GPU and its driver, one line of output per result.

    python benchmarks/first_contact_probe.py                    # every probe
    python benchmarks/first_contact_probe.py copies capture     # some of them
    python benchmarks/first_contact_probe.py --here capture     # one of them, in this process

Each probe runs in a process of its own, so that a crash loses one probe only.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from _probes import report

PROBES = ("environment", "kernels", "copies", "capture", "frames")  # modules of _probes/
TIMEOUT_S = 70  # of a probe
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run probes and return 1 if one failed, else 0."""
    if arguments[:1] == ["--here"]:
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the first probes run before seginfer is installed
        importlib.import_module(f"_probes.{arguments[1]}").run()
        return 0
    has_failed = False
    for name in arguments or PROBES:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        try:
            code = subprocess.run([sys.executable, __file__, "--here", name], timeout=TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            code = 124
        if code:
            has_failed = True
            report(name, f"FAILED with exit code {code}")
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
