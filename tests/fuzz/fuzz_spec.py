"""Fuzzes the readers of specs and model files: only a SegInferError comes of bad ones, and good ones round-trip."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from driver import Provider, instrument, run
from models import SPECS, save_model

from seginfer import ModelSpec, SegInferError, postprocess, preprocess, read_model
from seginfer._files import model_file, onnx_file
from seginfer._files.onnx_file import graph_sha256, read_nodes, read_onnx, write_metadata
from seginfer._geometry import geometry, tiles
from seginfer._spec import certificate, input_spec, model_spec, output_spec, schema

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz_spec_", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
PATH, COPY = FOLDER / "model.onnx", FOLDER / "copy.onnx"
IMAGES = {3: np.full((7, 9, 3), 200, np.uint8), 1: np.full((7, 9), 200, np.uint8)}
JSONS = [spec.to_json() for spec in SPECS.values()]
MODELS = [save_model(PATH, SPECS[name]).read_bytes() for name in ("semantic", "labels", "dynamic size")]
WORDS = sorted(
    {word for text in JSONS for word in text.replace('"', " ").replace(":", " ").split() if word.isidentifier()}
)
NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 65536, 2**31, 2**63, 10**400, 0.5, 1e308, -0.0, float("nan"), float("inf"))


def value(provider: Provider, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = provider.integer(0, 6 if depth < 3 else 4)
    if kind < 2:
        return provider.pick((None, True, False, provider.pick(NUMBERS)))
    if kind < 4:
        return provider.pick(WORDS) if kind == 2 else provider.text(6)
    if kind == 4:
        return provider.integer(-(2**31), 2**31)
    if kind == 5:
        return [value(provider, depth + 1) for _ in range(provider.integer(0, 4))]
    return {key(provider): value(provider, depth + 1) for _ in range(provider.integer(0, 3))}


def key(provider: Provider) -> str:
    return provider.text(5) if provider.chance(3) else provider.pick(WORDS)


def changed(provider: Provider, node: Any) -> Any:
    """Return a JSON value with something inside of it changed, left out, added, repeated or swapped."""
    if not node or not isinstance(node, (dict, list)) or provider.chance(5):
        return value(provider)
    keys: list[Any] = sorted(node) if isinstance(node, dict) else list(range(len(node)))
    at, kind = provider.pick(keys), provider.integer(0, 7)
    if kind < 4:
        node[at] = changed(provider, node[at])
    elif kind == 4:
        del node[at]
    elif kind == 5:
        node[at] = node[provider.pick(keys)]
    elif isinstance(node, dict):
        node[key(provider)] = value(provider)
    else:
        node.insert(at, value(provider))
    return node


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


def fuzz_json(provider: Provider) -> None:
    """Read a spec with values changed, or its text with bytes changed."""
    text = provider.pick(JSONS)
    if provider.chance(3):
        text = noise(provider, text.encode()).decode(provider.pick(("utf-8", "latin-1")), "surrogateescape")
    else:
        data = json.loads(text)
        for _ in range(provider.integer(1, 3)):
            data = changed(provider, data)
        text = json.dumps(data, ensure_ascii=provider.boolean())
    spec = ModelSpec.from_json(text)
    written = spec.to_json()
    again = ModelSpec.from_json(written)
    assert again.to_json() == written
    assert again == spec or "NaN" in written  # a certificate may have measured it
    assert hash(spec) == hash(ModelSpec.from_json(written))
    use(spec)


def use(spec: ModelSpec) -> None:
    """Do both pixel steps as the spec says, where that is little work."""
    if max(spec.input.size or (spec.input.multiple_of,)) > 64 or spec.num_classes > 9:
        return
    with np.errstate(all="ignore"):  # a scale may be as large as a float gets
        batch, geometries = preprocess([IMAGES[spec.input.channels]], spec, threads=1)
        height, width = (max(1, side // spec.output.graph_stride) for side in geometries[0].input_hw)
        shape = (len(batch), *((spec.num_channels, height, width) if spec.output.layout == "NCHW" else
                               (height, width, spec.num_channels)))  # fmt: skip
        is_labels = spec.output.kind == "labels"
        output = np.zeros((len(batch), height, width), np.int64) if is_labels else np.zeros(shape, np.float32)
        (mask,) = postprocess(output, geometries, spec, threads=1)
    assert mask.shape[-2:] == (7, 9)


def fuzz_model_file(provider: Provider) -> None:
    """Read a model file with bytes changed, by every reader that there is."""
    data = noise(provider, provider.pick(MODELS))
    PATH.write_bytes(data)
    readers: tuple[Callable[[], Any], ...] = (
        lambda: read_onnx(PATH), lambda: read_nodes(PATH), lambda: graph_sha256(PATH, ignore="seginfer"), set_metadata,
    )  # fmt: skip
    for read in readers:
        with suppress(SegInferError):
            read()
    model = read_model(PATH)
    assert ModelSpec.from_json(model.spec.to_json()) == model.spec


def set_metadata() -> None:
    write_metadata(PATH, COPY, "seginfer", "text")
    assert read_onnx(COPY).metadata["seginfer"] == "text"
    assert graph_sha256(COPY, ignore="seginfer") == graph_sha256(PATH, ignore="seginfer")


def target(provider: Provider) -> None:
    message = "refused"
    try:
        (fuzz_json if provider.boolean() else fuzz_model_file)(provider)
    except SegInferError as error:
        message = str(error)
    assert message.strip()
    assert "\n" not in message


if __name__ == "__main__":
    instrument(certificate, geometry, input_spec, model_file, model_spec, onnx_file, output_spec, schema, tiles)
    run(target, most_bytes=300)
