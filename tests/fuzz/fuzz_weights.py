"""Fuzzes the reader of checkpoints: only a SegInferError comes of bad ones, and the module is as it was then."""

from __future__ import annotations

import torch
from driver import check_refusal, folder, instrument, run

from seginfer import WeightsError
from seginfer.export import _weights
from seginfer.export._weights import load_weights, weights_sha256

FOLDER = folder()
MODULE = torch.nn.Conv2d(1, 2, 1)
BEFORE = weights_sha256(MODULE)
STATE = {name: tensor.clone() for name, tensor in MODULE.state_dict().items()}


def load(suffix: str, data: bytes) -> None:
    path = FOLDER / f"weights{suffix}"
    path.write_bytes(data)
    try:
        load_weights(MODULE, path)
    except WeightsError:
        assert weights_sha256(MODULE) == BEFORE
        raise
    MODULE.load_state_dict(STATE)


def target(data: bytes) -> None:
    """Read as what it looks like: archives of torch begin with PK, and its older files with a pickle."""
    suffix = ".pt" if data[:1] in (b"P", b"\x80") else ".safetensors"
    check_refusal(lambda: load(suffix, data))


if __name__ == "__main__":
    instrument(_weights)
    run(target, most_bytes=4000)
