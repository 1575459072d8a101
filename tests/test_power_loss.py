"""Every file that is written is on the disk before it gets its name: robots are switched off by the mains."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import needs_rtx
from models import SPECS, save_model

HERE = Path(__file__).parent
SOCCER = HERE.parent / "seginfer" / "assets" / "soccer"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that drops what was not synchronised."""
    path = tmp_path_factory.mktemp("power") / "power_loss.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, HERE / "cpp" / "power_loss.c", "-ldl"], check=True)
    return path


def run_and_lose_power(library: Path, folder: Path, *arguments: str) -> list[str]:
    """Run Python, and return the log of renames and synchronised folders."""
    log = folder / "power.log"
    environment = {**os.environ, "LD_PRELOAD": str(library), "POWER_LOSS_LOG": str(log)}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True, timeout=300)
    return log.read_text().splitlines()


def assert_complete(lines: list[str], *targets: Path) -> None:
    """Every target was renamed, and its folder synchronised afterwards."""
    for target in targets:
        at = lines.index(f"rename {target}")
        assert f"folder {target.parent}" in lines[at:]
        assert target.stat().st_size > 0


def test_the_imitation_loses_what_was_not_synchronised(library: Path, tmp_path: Path) -> None:
    script = "import os, sys; a, b = sys.argv[1:]; open(a, 'w').write('text'); os.replace(a, b)"
    run_and_lose_power(library, tmp_path, "-c", script, str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_size == 0


def test_models_masks_and_overlays_are_complete(library: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "out"
    save_model(tmp_path / "bare.onnx", SPECS["semantic"])
    (tmp_path / "spec.json").write_text(SPECS["semantic"].to_json())
    command = ("-m", "seginfer", "attach", str(tmp_path / "bare.onnx"), str(tmp_path / "spec.json"), "-o", str(model))
    assert_complete(run_and_lose_power(library, tmp_path, *command), model)
    shutil.copyfile(SOCCER / "samples" / "near.png", tmp_path / "frame.png")
    lines = run_and_lose_power(
        library, tmp_path, "-m", "seginfer", "run", str(model), str(tmp_path / "frame.png"), "-o", str(out)
    )
    assert_complete(lines, *(path for path in out.iterdir() if path.suffix in (".png", ".jpg")))


@needs_rtx
def test_engines_are_complete(library: Path, tmp_path: Path) -> None:
    model, engine = save_model(tmp_path / "m.onnx", SPECS["semantic"]), tmp_path / "m.engine"
    lines = run_and_lose_power(library, tmp_path, "-m", "seginfer", "build", str(model), "-o", str(engine))
    assert_complete(lines, engine, Path(f"{engine}.json"))
