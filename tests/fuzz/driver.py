"""Runs a fuzz target for a bounded time from a seed, or on inputs that were found before; under atheris if there."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
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

from seginfer import SegInferError

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


def noise(provider: Provider, data: bytes) -> bytes:
    """Return bytes with some cut, changed, repeated or put in."""
    for _ in range(provider.integer(1, 4)):
        first = provider.integer(0, len(data))
        last = min(len(data), first + provider.pick((0, 1, 1, 2, 8, provider.integer(0, 300))))
        kind = provider.integer(0, 4)
        if kind == 0:
            data = data[:first]
        elif kind == 1:
            data = data[:first] + data[last:]
        elif kind == 2:
            data = data[:last] + data[first:last] * provider.integer(1, 20) + data[last:]
        elif kind == 3:
            data = data[:first] + provider.bytes(last - first) + data[last:]
        else:
            data = data[:first] + provider.pick((b"\x00", b"\xff" * 9, b"\x7f", b"\x80" * 9 + b"\x01")) + data[last:]
    return data


def folder() -> Path:
    """Return a new folder below $TMPDIR, which nothing removes: libFuzzer ends without a last word."""
    return Path(tempfile.mkdtemp(prefix="fuzz_"))


def check_refusal(call: Callable[[], object]) -> None:
    """Call. Only a SegInferError of one line may come of it."""
    message = "accepted"
    try:
        call()
    except SegInferError as error:
        message = str(error)
    assert message.strip()
    assert "\n" not in message


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


def run(target: Callable[[bytes], None], *, most_bytes: int) -> None:
    """Call `target` with inputs until the time is over or something goes wrong.

    `--seconds N` and `--seed N` bound and seed the run; other arguments are libFuzzer's own. A file's name runs that
    input alone: `python tests/fuzz/fuzz_spec.py crash-...` repeats what a run has found. A folder is a corpus: its
    inputs run first, and are changed, and libFuzzer adds those that reach new branches. fuzz_NAME.dict is used.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20)
    options, rest = parser.parse_known_args()
    paths = [Path(name) for name in rest if not name.startswith("-")]
    if atheris:
        words = Path(sys.argv[0]).with_suffix(".dict")
        rest += [f"-dict={words}"] if words.is_file() else []
        bounds = f"-max_len={most_bytes}", f"-max_total_time={options.seconds}"
        # No limit of memory: libFuzzer asks for the peak of the process, which is its parent's until it grows larger.
        flags = [f"-seed={options.seed}", "-len_control=0", "-print_pcs=0", "-rss_limit_mb=0", *bounds]
        flags.append("-keep_seed=1")  # a kept input may matter to native code, which is not instrumented
        atheris.Setup([sys.argv[0], *flags, *rest], target)
        atheris.Fuzz()
        return
    kept = [file.read_bytes() for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for data in kept:
        target(data)
    if not paths or any(path.is_dir() for path in paths):
        _run_blindly(target, kept, options.seed, options.seconds)


def _run_blindly(target: Callable[[bytes], None], kept: list[bytes], seed: int, seconds: int) -> None:
    numbers, end, count = random.Random(seed), time.monotonic() + seconds, 0
    latest = Path(f"crash-{os.getpid()}")  # stays behind where the process dies
    while time.monotonic() < end:
        data = numbers.randbytes(8)
        if kept:
            data = noise(Provider(data), numbers.choice(kept))
        latest.write_bytes(data)
        target(data)
        count += 1
    latest.unlink()
    print(f"Done {count} runs")  # noqa: T201  # as libFuzzer says it
