"""Fuzzes the reader of specs: only a SegInferError comes of bad ones, and good ones round-trip and work."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from driver import Provider, check_refusal, instrument, noise, run
from models import SPECS

from seginfer import ModelSpec, postprocess, preprocess
from seginfer._geometry import geometry, tiles
from seginfer._spec import certificate, input_spec, model_spec, output_spec, schema

IMAGES = {3: np.full((7, 9, 3), 200, np.uint8), 1: np.full((7, 9), 200, np.uint8)}
JSONS = [spec.to_json() for spec in SPECS.values()]
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
    check_text(text)


def check_text(text: str) -> None:
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


def target(data: bytes) -> None:
    """Take text as it is, and other bytes as choices of what to change in a spec."""
    check_refusal(lambda: check_text(data.decode(errors="replace")) if data[:1] == b"{" else fuzz_json(Provider(data)))


if __name__ == "__main__":
    instrument(certificate, geometry, input_spec, model_spec, output_spec, schema, tiles)
    run(target, most_bytes=3000)
