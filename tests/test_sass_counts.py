"""How many instructions kernels issue per pixel: a regression shows here without a GPU.

The counts belong to one version of NVRTC and one state of the kernels. After a change that is meant, run

    SASS_COUNTS=write pytest tests/test_sass_counts.py

and read the difference of sass_counts.json before committing it.

    instructions per pixel = 32 * sum(instructions of a basic block * passes of all warps) / pixels

Instructions are those of sm_90. Passes are counted where the same source runs on the CPU, see `sass.issued`. Both sides
of a branch count where it is not marked in the source, and loops that ptxas unrolls count in full, so that a number is
an upper estimate. It is compared with its own past, within 10 %.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kernels_on_cpu as on_cpu
import numpy as np
import pytest
import sass

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, postprocess, preprocess
from seginfer._cuda import compiler, kernel_args
from seginfer._cuda.nvrtc import find_nvrtcs
from seginfer._cuda.steps import Launch
from seginfer._inputs import launches as input_launches
from seginfer._tasks.dense import launches as mask_launches

TABLE = Path(__file__).with_name("sass_counts.json")
IS_WRITING = os.environ.get("SASS_COUNTS") == "write"
LIMIT = 0.1
IMAGE_HW, INPUT_HW, LOGITS_HW, CLASSES = (1080, 1920), (512, 1024), (128, 256), 19

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


class Work(NamedTuple):
    """A launch, with how many pixels it makes."""

    launch: Launch
    pixels: int


def spec_of(resampling: Any = "opencv", dtype: Any = "float32") -> ModelSpec:
    source = InputSpec(INPUT_HW, resampling=resampling, dtype=dtype, mean=(0.4,) * 3, std=(0.2,) * 3)
    return ModelSpec("semantic", source, ClassSpec(tuple(map(str, range(CLASSES)))), (OutputSpec(stride=4),))


def input_work(cpu: on_cpu.Cpu, resampling: str, dtype: str, color: Any) -> list[Work]:
    spec, rng = spec_of(resampling, dtype), np.random.default_rng(1)
    shape = (*IMAGE_HW, 3) if color == "rgb" else (IMAGE_HW[0] * 3 // 2, IMAGE_HW[1])
    image = rng.integers(0, 256, shape, np.uint8)
    expected, geometries = preprocess([image], spec, color=color)
    records = input_launches.input_records(geometries, spec.input, color, cpu.upload)
    at = [input_launches.ImageAt(cpu.upload(image), image.strides[0])]
    input_launches.set_images(records, at, geometries, color)
    input_launches.set_batch(records, cpu.upload(np.empty_like(expected)), spec.input)
    return [Work(launch, expected[0, 0].size) for launch in input_launches.input_launches(records)]


def mask_work(cpu: on_cpu.Cpu, values: Any, dtype: str) -> list[Work]:
    """Return the launches of the mask, and of confidences."""
    values = values.astype(dtype)
    spec = spec_of()
    _, geometries = preprocess([np.zeros((*IMAGE_HW, 3), np.uint8)], spec)
    records = mask_launches.mask_records(geometries, LOGITS_HW, spec, cpu.upload(np.zeros(1, np.uint32)), cpu.upload)
    mask_launches.set_output(records, mask_launches.OutputAt(cpu.upload(values), dtype), spec)
    room = cpu.upload(np.empty(IMAGE_HW[0] * IMAGE_HW[1] + 16, np.uint8))
    planes = [
        mask_launches.PlaneAt(at, IMAGE_HW[1]) for at in (-(-room // 16) * 16, cpu.upload(np.empty(IMAGE_HW, "f4")))
    ]
    mask_launches.set_results(records, [mask_launches.ResultsAt(*planes)], geometries, np.dtype(np.uint8))
    return [Work(launch, IMAGE_HW[0] * IMAGE_HW[1]) for launch in mask_launches.mask_launches(records)]


def overlay_work(cpu: on_cpu.Cpu) -> list[Work]:
    records = np.zeros(1, kernel_args.OVERLAY)
    records["height"], records["width"] = IMAGE_HW
    records["channels"], records["mask_bytes"], records["classes"] = 3, 1, CLASSES
    records["row_bytes"] = records["out_row_bytes"] = 3 * IMAGE_HW[1]
    records["mask_row_stride"] = IMAGE_HW[1]
    image, mask = np.zeros((*IMAGE_HW, 3), np.uint8), np.zeros(IMAGE_HW, np.uint8)
    records["pixels"], records["mask"], records["out"] = cpu.upload(image), cpu.upload(mask), cpu.upload(image)
    records["palette"] = cpu.upload(mask_launches.palette_of(np.ones((CLASSES, 3), np.uint8), 128))
    return [Work(mask_launches.overlay_launch(records), IMAGE_HW[0] * IMAGE_HW[1])]


def logits(kind: str) -> Any:
    """Return the benchmarks' logits: "smooth" ones have several labels in a tenth of the 2 x 2 blocks of cells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(on_cpu.ROOT / "benchmarks"))
        import pictures  # type: ignore[import-not-found, unused-ignore]
    return getattr(pictures, f"{kind}_logits")(CLASSES, LOGITS_HW)


def all_work(cpu: on_cpu.Cpu) -> dict[str, Work]:
    """Return every launch that is counted, by its key in sass_counts.json."""
    found = {}
    for case in (
        ("opencv", "float32", "rgb"),
        ("opencv", "float16", "rgb"),
        ("torch", "float32", "rgb"),
        ("opencv", "float32", "nv12"),
        ("pillow", "float32", "rgb"),
    ):
        (found["preprocess, " + ", ".join(case)],) = input_work(cpu, *case)
    for dtype in ("float32", "float16"):
        found[f"mask, smooth, {dtype}"], found[f"confidence, {dtype}"] = mask_work(cpu, logits("smooth"), dtype)
    found["mask, noise, float32"], _ = mask_work(cpu, logits("noise"), "float32")
    (found["overlay"],) = overlay_work(cpu)
    return found


def trips_of(cpu: on_cpu.Cpu, launch: Launch) -> dict[sass.Place, int]:
    """Run a launch and return how often warps passed each mark."""
    room = ctypes.create_string_buffer(1 << 16)
    cpu.library.take_trips(room, ctypes.c_size_t(len(room)))
    cpu.run(launch)
    cpu.library.take_trips(room, ctypes.c_size_t(len(room)))
    found: dict[sass.Place, int] = {}
    for line in room.value.decode().splitlines():
        passes, number, file = line.split(" ", 2)
        found[file, int(number)] = found.get((file, int(number)), 0) + int(passes)
    return found


@cache
def table() -> dict[str, Any]:
    """Return what is recorded: versions, and instructions per pixel by name."""
    recorded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return recorded


def digest() -> str:
    """Return a digest of the kernels without comments and spaces."""
    folder = compiler.include_folder() / "seginfer" / "kernels"
    lines = [line.split("//")[0] for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    return hashlib.sha256("".join("".join(lines).split()).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def counted(cpu: on_cpu.Cpu, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Instructions per pixel of every launch."""
    work = all_work(cpu)
    names = list(dict.fromkeys(one.launch.kernel for one in work.values()))
    code = sass.disassembled(names, tmp_path_factory.mktemp("sass"))
    found = {}
    for key, (launch, pixels) in work.items():
        x, y, z = launch.grid
        warps = x * y * z * 8
        found[key] = round(32 * sass.issued(code, launch.kernel, trips_of(cpu, launch), warps) / pixels, 1)
    cpu.kept.clear()
    return found


@needs_compiler
def test_kernels_issue_as_many_instructions_as_recorded(counted: dict[str, float]) -> None:
    version = str(find_nvrtcs()[-1])
    if IS_WRITING:
        record = {"architecture": sass.ARCHITECTURE, "compiler": version, "source": digest(), "per_pixel": counted}
        TABLE.write_text(json.dumps(record, indent=2) + "\n")
        table.cache_clear()
    if version != table()["compiler"]:
        pytest.skip(f"the counts are those of {table()['compiler']}, here is {version}")
    assert counted.keys() == table()["per_pixel"].keys()
    far = {
        key: (n, table()["per_pixel"][key])
        for key, n in counted.items()
        if abs(n / table()["per_pixel"][key] - 1) > LIMIT
    }
    assert not far, "found and recorded counts"


def test_the_counts_belong_to_these_kernels() -> None:
    """Holds without NVIDIA's compiler: whoever changes a kernel counts again."""
    assert table()["source"] == digest(), "run SASS_COUNTS=write pytest tests/test_sass_counts.py"


@needs_compiler
def test_the_counted_masks_are_those_of_the_cpu(cpu: on_cpu.Cpu) -> None:
    spec = spec_of()
    values = logits("smooth")
    _, geometries = preprocess([np.zeros((*IMAGE_HW, 3), np.uint8)], spec)
    launch, _ = mask_work(cpu, values, "float32")[0]
    cpu.run(launch)
    address = int(launch.records["mask"][0])
    found = np.ctypeslib.as_array((ctypes.c_uint8 * (IMAGE_HW[0] * IMAGE_HW[1])).from_address(address)).reshape(
        IMAGE_HW
    )
    assert (found == postprocess(values, geometries, spec)[0]).all()
    cpu.kept.clear()
