"""Memory: one large picture leaves little behind, and a long list needs no more than a short one."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_pipelines import picture
from models import SPECS, make_spec, save_model
from onnx import TensorProto, helper, numpy_helper
from refusal import refuses

from seginfer import InputError, ModelSpec, Segmenter, attach_spec


def save_wide(path: Path, spec: ModelSpec) -> Path:
    """Save a network of any size whose inner layers hold 32 values a pixel, as real ones do."""
    generator = np.random.default_rng(0)
    widths = (3, 32, 32, 3)
    weights = [
        numpy_helper.from_array(generator.normal(size=(b, a, 3, 3)).astype(np.float32) / 20, f"w{i}")
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    names = [spec.input.name, "x0", "x1", spec.output.name]
    nodes = [
        helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(len(weights))
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "h", "w"])
        for name in (spec.input.name, spec.output.name)
    ]
    graph = helper.make_graph(nodes, "wide", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    attach_spec(path, spec, path)
    return path


SCRIPT = """
import sys
import numpy as np
from seginfer import Segmenter

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

small, large = (np.random.default_rng(0).integers(0, 256, shape, np.uint8) for shape in ((96, 128, 3), (2000, 3000, 3)))
with Segmenter.open(sys.argv[1], device="cpu", threads=1) as segmenter:
    for _ in range(10):
        segmenter(small)
    before = resident()
    segmenter(large)
    for _ in range(30):
        segmenter(small)
    print(resident() / before)
"""


def test_one_large_picture_leaves_little_behind(tmp_path: Path) -> None:
    """Once it left 26 times as much."""
    path = save_wide(tmp_path / "m.onnx", make_spec(size=None, multiple_of=8, resize="pad"))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2


def batches_of(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of all batches from now on."""
    sizes: list[int] = []
    infer: Any = segmenter.backend.infer

    def counted(batch: Any, out: Any = None) -> Any:
        sizes.append(len(batch))
        return infer(batch, out)

    monkeypatch.setattr(segmenter.backend, "infer", counted)
    return sizes


def test_a_list_is_run_in_batches_of_a_bounded_size(semantic_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture((24 + i, 32)) for i in range(19)]
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        expected = [segmenter(image).mask for image in images]
        sizes = batches_of(segmenter, monkeypatch)
        found = segmenter(images)
    assert sizes == [8, 8, 3]
    for result, mask in zip(found, expected, strict=True):
        np.testing.assert_array_equal(result.mask, mask)
    with Segmenter.open(semantic_model, device="cpu", batch_size=5) as segmenter:
        sizes = batches_of(segmenter, monkeypatch)
        segmenter(images)
    assert sizes == [5, 5, 5, 4]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "8"])
def test_a_batch_size_that_is_none_is_refused(batch_size: Any, semantic_model: Path) -> None:
    with refuses(InputError, "batch_size", "positive integer"):
        Segmenter.open(semantic_model, device="cpu", batch_size=batch_size)


def test_tiles_keep_their_own_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(tmp_path / "m.onnx", SPECS["tiles"])
    with Segmenter.open(path, device="cpu") as segmenter:
        sizes = batches_of(segmenter, monkeypatch)
        segmenter(picture((60, 90)))
    assert max(sizes) == 4


def test_images_of_many_sizes_leave_a_few_workspaces(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", SPECS["dynamic size"])
    with Segmenter.open(path, device="cpu") as segmenter:
        for side in range(8, 8 * 21, 8):
            segmenter(picture((side, 16)))
        workspaces: Any = segmenter.pipeline
        assert len(workspaces._workspaces._free) == 8
