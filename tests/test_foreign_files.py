"""A file of another kind, taken for a model or for weights, is named with its remedy."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from networks import Tiny
from safetensors.torch import save_file

from seginfer import ExportError, ModelFileError, WeightsError, read_model
from seginfer.export import load_source, load_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2591818\n"


def _saved(save: Any, *args: Any) -> bytes:
    buffer = io.BytesIO()
    save(*args, buffer)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.txt", "x")
    return buffer.getvalue()


def _files() -> dict[str, tuple[bytes, str]]:
    picture = np.zeros((8, 8, 3), np.uint8)
    script: Any = torch.jit.trace(Tiny().eval(), torch.rand(1, 3, 8, 8))  # type: ignore[no-untyped-call]
    program = torch.export.export(Tiny().eval(), (torch.rand(1, 3, 8, 8),))
    old = io.BytesIO()
    torch.save(Tiny().state_dict(), old, _use_new_zipfile_serialization=False)
    return {
        "pointer": (POINTER, "git lfs pull"),
        "jpeg": (cv2.imencode(".jpg", picture)[1].tobytes(), "a JPEG image"),
        "png": (cv2.imencode(".png", picture)[1].tobytes(), "a PNG image"),
        "web page": (b"\n <!DOCTYPE html><html>404</html>", "a web page"),
        "checkpoint": (_saved(torch.save, Tiny().state_dict()), "a PyTorch checkpoint"),
        "old checkpoint": (old.getvalue(), "a PyTorch checkpoint"),
        "TorchScript": (_saved(torch.jit.save, script), "a TorchScript archive"),
        "program": (_saved(torch.export.save, program), "an exported program"),
        "zip": (_zip(), "a zip archive"),
        "gzip": (gzip.compress(b"x"), "a gzip archive"),
        "TFLite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "a TensorFlow Lite model"),
        "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    }


FILES = _files()


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_a_foreign_file_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    for name in ("m.onnx", "m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=f"expected an ONNX model.*{words}"):
        read_model(tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=words):
        load_source(str(tmp_path / "m.pt"))
    if "checkpoint" not in words:
        for name in ("m.pt", "m.safetensors"):
            with pytest.raises(WeightsError, match=words):
                load_weights(Tiny(), tmp_path / name)


def test_weights_given_as_a_model_are_named(tmp_path: Path) -> None:
    save_file(Tiny().state_dict(), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="a safetensors file; give it as --weights"):
        read_model(tmp_path / "m.onnx")


def test_a_cut_file_is_called_cut(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(FILES["checkpoint"][0][:500])
    with pytest.raises(ModelFileError, match="not a complete ONNX model"):
        read_model(tmp_path / "m.onnx")


def test_a_zip_of_another_version_is_no_model(tmp_path: Path) -> None:
    content = bytearray(_zip())
    at = content.index(b"PK\x01\x02") + 6
    content[at : at + 2] = b"\xff\x00"  # the version that is needed to unpack it
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(WeightsError):
        load_weights(Tiny(), tmp_path / "m.pt")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match="not a complete ONNX model"):
        read_model(tmp_path / "m.onnx")


def test_names_of_a_damaged_file_do_not_break_the_line(tmp_path: Path) -> None:
    header = b'{"a\\nb": {"dtype": "no\\nsuch", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    torch.save({"a\nb": torch.zeros(1)}, tmp_path / "m.pt")
    for name in ("m.safetensors", "m.pt"):
        with pytest.raises(WeightsError) as caught:
            load_weights(Tiny(), tmp_path / name)
        assert "\n" not in str(caught.value)
