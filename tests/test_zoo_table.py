"""Every network is exported and checked by the commands that users have, and the table of the zoo says what came out.

The table in export/zoo/README.md is written from zoo_table.json, which these tests write after a change that is meant:

    ZOO_TABLE=write pytest tests/test_zoo_table.py

Kernel counts belong to one version of TensorRT for RTX, and are compared with that version only.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import pytest
import torch
from zoo import count
from zoo_networks import NETWORKS, Entry

from seginfer._cli import main
from seginfer._tensorrt._library import has_gpu

TABLE = Path(__file__).with_name("zoo_table.json")
PAGE = Path(__file__).parent.parent / "export" / "zoo" / "README.md"
IS_WRITING = os.environ.get("ZOO_TABLE") == "write"
PRECISIONS = ("fp32",)
IMAGE_SIZE = {"tile": (500, 460)}

Row = dict[str, Any]


def test_the_weights_are_as_many_as_the_table_says() -> None:
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            assert count(build(entry)) == entry.parameters, name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_thin_network_is_exported_and_built(name: str, precision: str, tmp_path: Path, capsys: Any) -> None:
    entry = NETWORKS[name]
    compare(f"{name}, thin", precision, exported(entry, entry.quick_size, precision, tmp_path, capsys, thin=True))


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_full_network_is_exported_and_built(name: str, precision: str, tmp_path: Path, capsys: Any) -> None:
    compare(name, precision, exported(NETWORKS[name], NETWORKS[name].size, precision, tmp_path, capsys, thin=False))


def exported(
    entry: Entry, size: tuple[int, int], precision: str, folder: Path, capsys: Any, *, thin: bool
) -> Row:
    """Run `seginfer export` and `seginfer check`, and return what they say."""
    spec, image, model = folder / "spec.json", folder / "image.png", folder / "model.onnx"
    spec.write_text(entry.spec(size).to_json())
    assert cv2.imwrite(str(image), picture(entry, size))
    kwargs = {"num_classes": entry.num_classes, **keywords(entry, thin=thin)}
    command = ["export", entry.source, "--kwargs", json.dumps(kwargs), "--spec", str(spec), "--images", str(image)]
    torch.manual_seed(0)
    code = main([*command, "-o", str(model), "--json"])
    certificate = json.loads(capsys.readouterr().out)["certificate"]
    assert code == 0
    assert certificate["passed"]
    code = main(["check", str(model), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    return {
        "decisive": certificate["decisive_agreement"],
        "undecided": certificate["undecided_share"],
        "all": certificate["pixel_agreement"],
        "kernels": report["kernels"],
        "version": report["version"],
    }
