"""Every network is exported and checked by the commands that users have, and the table of the zoo says what came out.

The table in export/zoo/README.md is written from zoo_table.json, which these tests write after a change that is meant:

    ZOO_TABLE=write pytest -m "" tests/test_zoo_table.py

Kernel counts belong to one version of TensorRT for RTX, and are compared with that version only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from networks import pictures
from zoo import count
from zoo_networks import NETWORKS, Entry

from seginfer import MissingDependencyError
from seginfer._cli import main
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.library import find_library
from seginfer.export import load_source

TABLE = Path(__file__).with_name("zoo_table.json")
PAGE = Path(__file__).parent.parent / "export" / "zoo" / "README.md"
IS_WRITING = os.environ.get("ZOO_TABLE") == "write"
PRECISIONS = ("fp32", "fp16")
NEARLY_REFUSED = (
    0.9985  # 0.998 of all pixels must agree: a few pixels of a small picture may decide otherwise elsewhere
)
PAGE_TEXT = """\
# Reference networks

The networks of a segmentation course, one readable file each, with random weights: to learn from, to test with, to
start from. Each cites its paper. `seginfer export` takes every one, and NVIDIA's own parser and builder take what comes
out:

```sh
seginfer export seginfer.export.zoo.fcn:fcn8s --spec spec.json --precision fp16 -o fcn8s.onnx
seginfer check fcn8s.onnx
```

Written by `tests/test_zoo_table.py`, which runs these two commands for each network at its published width, with random
weights, on one picture of its own size. *Decisive* pixels are those whose label no measured error can change;
*undecided* is the share of the others. Kernels are those that TensorRT for RTX {version} makes.

| network | input | parameters | published | precision | decisive agree | undecided | all agree | kernels |
| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: |
{rows}

*Refused*: too few pixels agreed or too little could be done in float16, and no file was kept; the error names the
layers. Random weights decide much less clearly than trained ones.
"""


@pytest.fixture
def _tensorrt() -> None:
    """Skip where there is no parser to ask."""
    try:
        find_library()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_the_weights_are_as_many_as_the_table_says() -> None:
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            assert count(load_source(entry.source, entry.keywords(thin=False)).module) == entry.parameters, name


# Networks without a thinner form belong to the full ring, but for the smallest. So does fp32, which the tests of each
# network export, and which fp16 begins with.
THIN = [
    name if entry.divisor or entry.parameters < 10_000_000 else pytest.param(name, marks=pytest.mark.full)
    for name, entry in NETWORKS.items()
]


@pytest.mark.usefixtures("_tensorrt")
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.full), "fp16"])
@pytest.mark.parametrize("name", THIN)
def test_a_thin_network_is_exported_and_built(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(f"{name}, thin", precision, measured(NETWORKS[name], precision, tmp_path, capsys, thin=True))


@pytest.mark.full
@pytest.mark.usefixtures("_tensorrt")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_full_network_is_exported_and_built(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(name, precision, measured(NETWORKS[name], precision, tmp_path, capsys, thin=False))


def test_the_page_shows_the_table() -> None:
    if IS_WRITING:
        PAGE.write_text(page(recorded()), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(recorded())


def measured(
    entry: Entry, precision: str, folder: Path, capsys: pytest.CaptureFixture[str], *, thin: bool
) -> dict[str, Any]:
    """Run `seginfer export` and `seginfer check`, and return what they say."""
    spec, image, model = folder / "spec.json", folder / "image.png", folder / "model.onnx"
    size = entry.quick_size if thin else entry.size
    spec.write_text(entry.spec(size).to_json())
    assert cv2.imwrite(str(image), picture(entry, size))
    command = ["export", entry.source, "--kwargs", json.dumps(entry.keywords(thin=thin)), "--spec", str(spec)]
    if entry.noise and precision == "fp16":  # unpooling meets ties on smooth pictures, and other ranges
        noise = [folder / f"noise_{seed}.png" for seed in (1, 2)]
        assert all(cv2.imwrite(str(path), picture(entry, size, seed)) for seed, path in enumerate(noise, 1))
        command += ["--calibration", *map(str, noise)]
    torch.manual_seed(0)
    code = main([*command, "--images", str(image), "--precision", precision, "-o", str(model), "--json"])
    said = capsys.readouterr()
    if code:
        assert (code, precision) == (2, "fp16"), said.err
        assert re.search(r"fp16 loses too much in \w|could be done in float16", said.err)  # layers follow
        assert not model.exists()
        return {"refused": True}
    certificate = json.loads(said.out)["certificate"]
    assert certificate["passed"]
    assert certificate["precision"] == precision
    by_rounding = certificate["rounding_agreement"] is not None  # maxima swapped places: nothing is decisive then
    assert certificate["decisive_agreement"] == 1.0 or (by_rounding and entry.noise)
    code = main(["check", str(model), "--json"])
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert code == 0, report["problems"]
    assert [tensor["dtype"] for tensor in report["inputs"] + report["outputs"]] == ["float32"] * (
        1 + len(entry.outputs)
    )
    found = set(report["precisions"])  # read back from what was built
    assert found == {"float32"} if precision == "fp32" else {"float16"} <= found <= {"float16", "float32"}
    shares = {"decisive": "decisive_agreement", "undecided": "undecided_share", "all": "pixel_agreement"}
    row = {key: round(certificate[name], 6) for key, name in shares.items() if key == "all" or not by_rounding}
    return {**row, "kernels": report["kernels"]}


def picture(entry: Entry, size: tuple[int, int], seed: int = 0) -> np.ndarray[Any, Any]:
    """Return one picture of this size, or one that two tiles share."""
    if entry.noise:
        return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    margin = entry.fields.get("tile_margin", 0)
    (image,) = pictures((size[0] - 2 * margin, size[1] - margin))
    return image[:, :, 0] if entry.gray else image


def recorded() -> dict[str, Any]:
    """Return the table: the version of TensorRT for RTX, and what was measured by network and precision."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def compare(name: str, precision: str, row: dict[str, Any]) -> None:
    """Hold a measurement against the table; shares may differ in what another processor rounds otherwise."""
    library = find_library()
    if IS_WRITING:
        table = recorded() if TABLE.exists() else {"rows": {}}
        table["version"] = library.version
        table["rows"].setdefault(name, {})[precision] = row
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    table = recorded()
    expected = table["rows"][name][precision]
    if ("refused" in row) != ("refused" in expected):
        assert precision == "fp16", "float32 was refused"
        assert "refused" in expected or expected["all"] < NEARLY_REFUSED
        return
    if "refused" in row:
        return
    if library.version == table["version"] and not has_gpu():
        # Which layers stay in float32 follows from measured errors, which are the processor's in the last digits.
        assert row["kernels"] == pytest.approx(expected["kernels"], rel=0.1 if precision == "fp16" else 0)
    for share in {"decisive", "undecided", "all"} & row.keys() & expected.keys():
        # What is undecided follows the single largest error.
        near: dict[str, Any] = {"rel": 0.5, "abs": 0.002} if share == "undecided" else {"abs": 0.002}
        assert row[share] == pytest.approx(expected[share], **near), share


def page(table: dict[str, Any]) -> str:
    """Return the page that people read."""
    return PAGE_TEXT.format(version=table["version"], rows="\n".join(rows(table)))


def rows(table: dict[str, Any]) -> Iterator[str]:
    for name, entry in NETWORKS.items():
        for precision in PRECISIONS:
            row = table["rows"][name][precision]
            about = (name, f"{entry.size[0]} x {entry.size[1]}", f"{entry.parameters:,}", entry.published)
            lead = about if precision == PRECISIONS[0] else ("",) * 4
            figures = (
                ("refused", "", "", "")
                if "refused" in row
                else (f"{row['decisive']:.2%}", f"{row['undecided']:.2%}", f"{row['all']:.3%}", str(row["kernels"]))
            )
            yield f"| {' | '.join((*lead, precision, *figures))} |"
