"""Runs a fuzz target for a bounded time from a seed, or on one input that was found before; under atheris if there."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TypeVar

try:
    import atheris  # type: ignore[import-untyped, unused-ignore]
except ImportError:  # it has no wheels for every machine; inputs are random then, not guided by what code they reach
    atheris = None

sys.path.insert(0, str(Path(__file__).parent.parent))  # the builders that tests share

T = TypeVar("T")


class Provider:
    """Values drawn from an input's bytes, and where they end, from a generator that the bytes seed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._random = random.Random(zlib.crc32(data))

    def integer(self, low: int, high: int) -> int:
        """Return a number of low..high."""
        span = high - low + 1
        return low + int.from_bytes(self.bytes((span - 1).bit_length() // 8 + 1), "little") % span

    def bytes(self, count: int) -> bytes:
        """Return so many bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken + self._random.randbytes(count - len(taken))

    def boolean(self) -> bool:
        """Return one of both."""
        return self.integer(0, 1) == 1

    def chance(self, one_in: int) -> bool:
        """Tell, once in `one_in` times, to do something unusual."""
        return self.integer(1, one_in) == one_in

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.integer(0, len(values) - 1)]

    def text(self, most: int) -> str:
        """Return text of any characters, surrogates included."""
        most_of_one = self.pick([0x7F, 0xFF, 0xFFFF, 0x10FFFF])
        return "".join(chr(self.integer(0, most_of_one)) for _ in range(self.integer(0, most)))


def instrument(*modules: ModuleType) -> None:
    """Let atheris see which branches of the functions and methods of some modules an input reaches.

    Its import hook would do that, but not for packages that are installed in editable mode.
    """
    for module in modules if atheris else ():
        classes = [one for one in vars(module).values() if isinstance(one, type)]
        for one in [value for place in (module, *classes) for value in vars(place).values()]:
            function = getattr(one, "fget", None) or getattr(one, "__func__", one)
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)


def run(target: Callable[[Provider], None], *, most_bytes: int) -> None:
    """Call `target` with inputs until the time is over or something goes wrong.

    `--seconds N` and `--seed N` bound and seed the run; other arguments are libFuzzer's own. A file's name runs that
    input alone: `python tests/fuzz/fuzz_spec.py crash-...` repeats what a run has found.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20)
    options, rest = parser.parse_known_args()
    files = [Path(name) for name in rest if not name.startswith("-")]

    def once(data: bytes) -> None:
        target(Provider(data))

    if atheris:
        bounds = f"-max_len={most_bytes}", f"-max_total_time={options.seconds}"
        # No limit of memory: libFuzzer asks for the peak of the process, which is its parent's until it grows larger.
        flags = [f"-seed={options.seed}", "-len_control=0", "-print_pcs=0", "-rss_limit_mb=0", *bounds]
        atheris.Setup([sys.argv[0], *flags, *rest], once)
        atheris.Fuzz()
    elif files:
        for file in files:
            once(file.read_bytes())
    else:
        _run_blindly(once, options.seed, options.seconds)


def _run_blindly(once: Callable[[bytes], None], seed: int, seconds: int) -> None:
    numbers, end, count = random.Random(seed), time.monotonic() + seconds, 0
    latest = Path(f"crash-{os.getpid()}")  # stays behind where the process dies
    while time.monotonic() < end:
        data = numbers.randbytes(8)
        latest.write_bytes(data)
        once(data)
        count += 1
    latest.unlink()
    print(f"Done {count} runs")  # noqa: T201  # as libFuzzer says it
