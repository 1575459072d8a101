"""Fuzzes the readers of model files: only a SegInferError comes of bad ones, and metadata round-trips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from driver import check_refusal, folder, instrument, run

from seginfer import ModelSpec, SegInferError, read_model
from seginfer._files import model_file, onnx_file, protobuf
from seginfer._files.onnx_file import graph_sha256, read_nodes, read_onnx, write_metadata

FOLDER = folder()
PATH, COPY = FOLDER / "model.onnx", FOLDER / "copy.onnx"


def set_metadata() -> None:
    write_metadata(PATH, COPY, "seginfer", "text")
    assert read_onnx(COPY).metadata["seginfer"] == "text"
    assert graph_sha256(COPY, ignore="seginfer") == graph_sha256(PATH, ignore="seginfer")


READERS: tuple[Callable[[], Any], ...] = (
    lambda: read_onnx(PATH), lambda: read_nodes(PATH), lambda: graph_sha256(PATH, ignore="seginfer"), set_metadata,
)  # fmt: skip


def read_all() -> None:
    for read in READERS:
        with suppress(SegInferError):
            read()
    model = read_model(PATH)
    assert ModelSpec.from_json(model.spec.to_json()) == model.spec


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    check_refusal(read_all)


if __name__ == "__main__":
    instrument(model_file, onnx_file, protobuf)
    run(target, most_bytes=6000)
