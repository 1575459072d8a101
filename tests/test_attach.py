"""Ring 1: attach_spec() changes a file's entry and nothing else, or leaves everything as it was."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tolerances
import torch
import torch.nn.functional as F
from models import SPECS, make_onnx, make_spec

from seginfer import (
    Certificate,
    ClassSpec,
    InputSpec,
    ModelFileError,
    ModelSpec,
    OutputSpec,
    OutputWriteError,
    Segmenter,
    attach_spec,
    read_model,
)
from seginfer._files.model_file import pipeline_sha256
from seginfer._files.protobuf import FileBytes
from seginfer._system.atomic import atomic_path

SPEC = SPECS["semantic"]
NEW_SPEC = make_spec(mean=(0.5,), std=(0.25,), resize="letterbox")
THIRD_PARTY = Path(__file__).parents[2] / "shared" / "models" / "person_mediapipe_256.onnx"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model file without a spec."""
    path = tmp_path / "bare.onnx"
    onnx.save(make_onnx(SPEC), path)
    return path


def without_metadata(path: Path) -> onnx.ModelProto:
    model = onnx.load(path)
    del model.metadata_props[:]
    return model


def test_the_model_is_the_same_apart_from_its_entry(bare: Path, tmp_path: Path) -> None:
    before = bare.read_bytes()
    attach_spec(bare, SPEC, tmp_path / "out.onnx")
    assert bare.read_bytes() == before
    assert (tmp_path / "out.onnx").read_bytes().startswith(before)
    assert without_metadata(tmp_path / "out.onnx") == without_metadata(bare)
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))
    assert read_model(tmp_path / "out.onnx").spec == SPEC


def test_attaching_again_replaces_the_older_spec(bare: Path) -> None:
    attach_spec(bare, SPEC, bare)
    size = bare.stat().st_size
    attach_spec(bare, NEW_SPEC, bare)
    attach_spec(bare, SPEC, bare)
    assert bare.stat().st_size == size
    assert [entry.key for entry in onnx.load(bare).metadata_props] == ["seginfer"]
    assert read_model(bare).spec == SPEC


def test_a_certificate_of_another_pipeline_is_left_out(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers: dict[str, Any] = dict.fromkeys(("images", "pixels"), 1) | {
        field.name: 1.0 for field in dataclasses.fields(Certificate) if field.type == "float"
    }
    for graph_of, is_kept in [(SPEC, True), (NEW_SPEC, False)]:
        measured = Certificate(True, None, "fp32", **numbers, pipeline_sha256=pipeline_sha256(bare, graph_of))
        provenance = dataclasses.replace(SPEC.provenance, certificate=measured)
        with caplog.at_level(logging.WARNING, logger="seginfer"):
            attach_spec(bare, dataclasses.replace(SPEC, provenance=provenance), bare.with_name("out.onnx"))
        assert read_model(bare.with_name("out.onnx")).spec.provenance.certificate == (measured if is_kept else None)
        assert [record.levelname for record in caplog.records] == ([] if is_kept else ["WARNING"])


def test_attaching_in_place_leaves_one_file(bare: Path) -> None:
    expected = without_metadata(bare)
    attach_spec(bare, SPEC, bare)
    assert without_metadata(bare) == expected
    assert read_model(bare).spec == SPEC
    assert list(bare.parent.iterdir()) == [bare]


def test_a_model_with_weights_in_other_files_stays_beside_them(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "model.onnx", tmp_path / "elsewhere"
    elsewhere.mkdir()
    onnx.save(make_onnx(SPEC), source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelFileError, match="into the same folder"):
        attach_spec(source, SPEC, elsewhere / "out.onnx")
    assert list(elsewhere.iterdir()) == []
    attach_spec(source, SPEC, tmp_path / "out.onnx")
    image = np.zeros((24, 32, 3), np.uint8)
    image[..., 2] = 9
    with Segmenter.open(tmp_path / "out.onnx") as segmenter:
        assert (segmenter(image).mask == 2).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("moment", ["in the middle", "before the rename"])
@pytest.mark.parametrize("in_place", [True, False])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    error: type[BaseException], moment: str, in_place: bool, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = bare if in_place else bare.with_name("target.onnx")
    attach_spec(bare, SPEC, target)
    before = {path: path.read_bytes() for path in bare.parent.iterdir()}
    chunks: Any = FileBytes.chunks
    calls: list[str] = []

    def interrupted_chunks(self: FileBytes, start: int, end: int) -> Iterator[bytes]:
        yield from chunks(self, start, end)
        calls.append(f"{start}.part")
        if len(calls) == 2:
            raise error

    def no_replace(part: Any, _target: Any) -> None:
        calls.append(str(part))
        raise error

    if moment == "in the middle":
        monkeypatch.setattr(FileBytes, "chunks", interrupted_chunks)
    else:
        monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(OutputWriteError if error is OSError else error):
        attach_spec(bare, NEW_SPEC, target)
    assert calls
    assert all(".part" in call for call in calls)
    assert {path: path.read_bytes() for path in bare.parent.iterdir()} == before


def test_a_full_disk_is_reported_as_such(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileBytes, "chunks", full)
    with pytest.raises(OutputWriteError, match=r"out\.onnx: No space left on device"):
        attach_spec(bare, SPEC, bare.with_name("out.onnx"))
    assert list(bare.parent.iterdir()) == [bare]


def test_a_missing_output_folder_is_named(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputWriteError, match=r"no folder .*missing; create it first"):
        attach_spec(bare, SPEC, tmp_path / "missing" / "out.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputWriteError, match="folder"):
        attach_spec(bare, SPEC, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.onnx", "folder"]


@pytest.mark.skipif(not THIRD_PARTY.is_file(), reason=f"needs {THIRD_PARTY.name}, a model of a third party")
def test_a_model_made_by_others_gets_a_spec_and_runs(tmp_path: Path) -> None:
    threshold = 0.05  # a drawn person convinces the network a little
    spec = ModelSpec(
        "binary",
        InputSpec(size=(256, 256), name="input_1", layout="NHWC"),
        ClassSpec(("background", "person")),
        (OutputSpec("activation_10", "probabilities", "NHWC", threshold=threshold),),
    )
    attach_spec(THIRD_PARTY, spec, tmp_path / "person.onnx")
    image = np.full((300, 420, 3), 180, np.uint8)
    cv2.circle(image, (210, 90), 45, (224, 172, 105), -1)
    cv2.ellipse(image, (210, 300), (110, 150), 0, 0, 360, (40, 60, 130), -1)
    with Segmenter.open(tmp_path / "person.onnx", color="rgb") as segmenter:
        mask, trace = segmenter(image).mask, segmenter.trace(image)
    assert mask.shape == (300, 420)
    assert set(np.unique(mask)) == {0, 1}
    probability = torch.from_numpy(trace.output).permute(0, 3, 1, 2)
    values = F.interpolate(probability, (300, 420), mode="bilinear", align_corners=False)[0, 0].numpy()
    decisive = np.abs(values - threshold) > tolerances.MARGIN.limit
    np.testing.assert_array_equal(mask[decisive], (values > threshold)[decisive])


def test_a_link_stays_a_link_and_a_device_is_not_replaced(semantic_model: Path, tmp_path: Path) -> None:
    spec = read_model(semantic_model).spec
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real.onnx")
    attach_spec(semantic_model, spec, tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert read_model(tmp_path / "real.onnx").spec == spec
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputWriteError, match="not a regular file"):
        attach_spec(semantic_model, spec, tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["bare.onnx/out.onnx", f"{'n' * 300}.onnx", "loop.onnx"])
def test_a_name_that_no_file_can_have_is_known_before_the_work(name: str, bare: Path) -> None:
    (bare.parent / "loop.onnx").symlink_to("loop.onnx")
    before = sorted(bare.parent.iterdir())
    started = False
    with pytest.raises(OutputWriteError, match=r"cannot write .*check the name"), atomic_path(bare.parent / name):
        started = True
    with pytest.raises(OutputWriteError, match=r"cannot write .*check the name"):
        attach_spec(bare, SPEC, bare.parent / name)
    assert not started
    assert sorted(bare.parent.iterdir()) == before


def test_a_folder_that_becomes_a_file_meanwhile_is_the_error_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    def write() -> None:
        with atomic_path(tmp_path / "folder" / "x") as part:
            (tmp_path / "folder").rmdir()
            (tmp_path / "folder").touch()
            part.write_text("x")

    with pytest.raises(OutputWriteError, match=r"cannot write .*Not a directory"):
        write()
