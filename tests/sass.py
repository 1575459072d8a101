"""Instructions that a kernel issues: those of every basic block of its machine code, times the trips of its warps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from seginfer._cuda import compiler
from seginfer._cuda.kernels import source_of
from seginfer._cuda.nvrtc import find_nvrtcs

ARCHITECTURE = "sm_90"

_FRAME = re.compile(r'//## File "([^"]+)", line (\d+)')
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?(\w+)")
_ENDS = {"BRA", "EXIT", "RET", "CALL", "BSYNC", "BRX", "JMP"}

Place = tuple[str, int]
"""File and line."""
Frames = tuple[Place, ...]
"""Where an instruction comes from: its own line, then the call that it was inlined for, and so on."""


class Mark(NamedTuple):
    """A block of braces with SEG_TRIP: its first and last line, and how often the compiler repeats it."""

    first: int
    last: int
    copies: int


def disassembled(names: list[str], folder: Path) -> str:
    """Compile kernels and return their machine code with source lines, or skip where a tool is missing."""
    nvrtcs = find_nvrtcs()
    if not nvrtcs:
        pytest.skip("needs an NVRTC: pip install 'seginfer[cuda]'")
    options = [f"--gpu-architecture={ARCHITECTURE}", f"--include-path={compiler.include_folder()}", "-lineinfo"]
    file = folder / "counted.cubin"
    file.write_bytes(nvrtcs[-1].compile(source_of(names), [*options, *compiler.OPTIONS]))
    command = [tool("nvdisasm"), "-gi", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def tool(name: str) -> str:
    """Return the path of one of NVIDIA's tools, or skip."""
    found = shutil.which(name) or next(map(str, _site_tools(name)), None)
    if found is None:
        pytest.skip(f"needs {name}: pip install nvidia-cuda-{name}")
    return found


def _site_tools(name: str) -> Iterator[Path]:
    for folder in map(Path, sys.path):
        yield from sorted(folder.glob(f"nvidia/cu*/bin/{name}"))


def basic_blocks(code: str, kernel: str) -> list[list[Frames]]:
    """Return where every instruction of a kernel comes from, by basic block."""
    blocks: list[list[Frames]] = [[]]
    frames: list[Place] = []
    is_complete = True
    for line in code.split(f".text.{kernel}:\n")[1].split("\n//-----")[0].splitlines():
        if frame := _FRAME.search(line):
            frames = [*([] if is_complete else frames), (frame[1], int(frame[2]))]
            is_complete = False
        elif instruction := _INSTRUCTION.match(line):
            is_complete = True
            if instruction[1] != "NOP":
                blocks[-1].append(tuple(frames))
            if instruction[1] in _ENDS:
                blocks.append([])
        elif line.startswith(".L_"):
            blocks.append([])
    return [block for block in blocks if block]


def marks() -> dict[Place, Mark]:
    """Return every SEG_TRIP of the kernels, by its place."""
    found: dict[Place, Mark] = {}
    for path in sorted((compiler.include_folder() / "seginfer" / "kernels").iterdir()):
        opened: list[int] = []
        waiting: list[tuple[int, int, int]] = []  # depth, line, copies
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("//")[0]
            if mark := re.fullmatch(r"\s*SEG_TRIP(?:_OF\((\d+)\))?;\s*", code):
                waiting.append((len(opened), number, int(mark[1] or 1)))
            for letter in re.sub("[^{}]", "", code):
                if letter == "{":
                    opened.append(number)
                    continue
                for depth, at, copies in [one for one in waiting if one[0] == len(opened)]:
                    found[str(path), at] = Mark(opened[-1], number, copies)
                    waiting.remove((depth, at, copies))
                opened.pop()
    return found


def issued(code: str, kernel: str, trips: dict[Place, int], warps: int) -> float:
    """Return how many instructions all warps issue.

    A block of instructions belongs to the innermost marked braces that most of them come from, and is passed as often
    as these. A warp passes a mark as often as the busiest of its threads. What is in no marked braces is passed once.
    """
    marked, total = marks(), 0.0
    for block in basic_blocks(code, kernel):
        ((place, _),) = Counter(_place(frames, marked, trips) for frames in block).most_common(1)
        total += len(block) * (warps if place is None else trips.get(place, 0) / marked[place].copies)
    return total


def _place(frames: Frames, marked: dict[Place, Mark], trips: dict[Place, int]) -> Place | None:
    """Return the innermost mark around an instruction; one that is never passed hides those within."""
    around: list[Place] = []
    for file, line in frames:
        inside = [place for place, mark in marked.items() if place[0] == file and mark.first <= line <= mark.last]
        around += sorted(inside, key=lambda place: -marked[place].first)
    return next((place for place in around if not trips.get(place)), around[0] if around else None)
