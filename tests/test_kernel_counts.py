"""How many kernels NVIDIA's builder makes of a network: fusion that breaks shows here, and nowhere else without a GPU.

The counts belong to one version of TensorRT for RTX. After a change that is meant, or for a new version, run

    KERNEL_COUNTS=write pytest tests/test_kernel_counts.py

and read the difference of kernel_counts.json before committing it. Counts of whole networks are in zoo_table.json.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import networks
import numpy as np
import nvidia_models
import onnx
import pytest
import torch
from models import SPECS, save_model
from torch import nn

from seginfer import MissingDependencyError, ModelSpec
from seginfer._system.driver import has_gpu
from seginfer._tensorrt import check
from seginfer._tensorrt.library import RTX, find_library
from seginfer.assets import SOCCER
from seginfer.export import export_onnx

TABLE = Path(__file__).with_name("kernel_counts.json")
IS_WRITING = os.environ.get("KERNEL_COUNTS") == "write"


def shipped(path: Path) -> None:
    shutil.copyfile(SOCCER / "pitch.onnx", path)


def exported(module: Callable[[], nn.Module], spec: ModelSpec, path: Path) -> None:
    torch.manual_seed(0)
    size = spec.input.size or (64, 96)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    export_onnx(module().eval(), spec, path, images=[image])


def written(make: Callable[[], onnx.ModelProto], path: Path) -> None:
    nvidia_models.save(make, path)


# Each writes an .onnx file to the path it is given; a name is a key of kernel_counts.json.
MODELS: dict[str, Callable[[Path], Any]] = {
    "soccer": shipped,
    "tiny": partial(exported, networks.Tiny, networks.make_spec()),
    "tiny, any size": partial(exported, networks.Tiny, networks.make_spec(size=None, multiple_of=8, resize="pad")),
    "one convolution": partial(written, nvidia_models.convolution),
    "half precision": partial(written, nvidia_models.half_precision),
    "raw pixels": partial(written, nvidia_models.raw_pixels),
    "channels last": lambda path: save_model(path, SPECS["channels last"]),
}


def table() -> dict[str, Any]:
    """Return what is recorded: library, version, and kernels by name."""
    recorded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return recorded


def version() -> str:
    """Return the version of TensorRT for RTX, or skip: another version or library may fuse otherwise."""
    try:
        library = find_library()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    if has_gpu() or (library.version != table()["version"] and not IS_WRITING):
        there = f"{library.description} and {'a' if has_gpu() else 'no'} GPU"
        pytest.skip(f"the counts are those of {RTX} {table()['version']} without a GPU, here is {there}")
    return library.version


@pytest.mark.parametrize("name", MODELS)
def test_a_network_becomes_as_many_kernels_as_recorded(name: str, tmp_path: Path) -> None:
    found = version()
    MODELS[name](tmp_path / "m.onnx")
    report = check(tmp_path / "m.onnx")
    assert report.status == "supported", report.summary()
    if IS_WRITING:
        record(name, found, report.kernels)
    assert report.kernels == table()["kernels"].get(name), report.kernel_kinds


def record(name: str, found: str, kernels: int | None) -> None:
    """Write one count; those of another version are dropped."""
    kept = table()["kernels"] if table()["version"] == found else {}
    counts = {key: value for key, value in sorted({**kept, name: kernels}.items()) if key in MODELS}
    TABLE.write_text(json.dumps({"library": RTX, "version": found, "kernels": counts}, indent=2) + "\n")


def test_every_count_belongs_to_a_network_and_every_network_has_one() -> None:
    assert sorted(table()["kernels"]) == sorted(MODELS)
