"""What a stranger installs: the built wheel, in fresh environments that hold only what its extras name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def call(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**inherited, **variables}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=environment)


def build(folder: Path, **variables: str) -> Path:
    """Build the wheel in `folder` and return its path."""
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, ROOT)
    built = call(*command, cwd=folder, **variables)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("seginfer-*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def environment(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment with `requirements` and return its bin folder."""
    made = call(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    pip = call(folder / "venv" / "bin" / "pip", "install", "-q", *requirements, cwd=folder)
    assert pip.returncode == 0, pip.stderr
    return folder / "venv" / "bin"


def names_in(wheel: Path) -> list[str]:
    """Return what a wheel holds, after a look at whether it holds both halves and the model, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"seginfer.h", "kernels/pixel.h", "kernels/kernels.cuh"} <= {
        name.removeprefix("seginfer/include/seginfer/") for name in names
    }
    for name in ("__init__.py", "py.typed", "_cli/demo.py", "export/__init__.py", "export/zoo/unet.py"):
        assert f"seginfer/{name}" in names
    for name in ("pitch.onnx", "pitch.safetensors", "clip.webm", "spec.json", "MODEL_CARD.md"):
        assert f"seginfer/assets/soccer/{name}" in names
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"seginfer"}
    assert not [name for name in names if "__pycache__" in name]
    return names


@pytest.mark.full
def test_an_install_that_needs_the_core_fails_without_a_compiler(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT)
    built = call(*command, cwd=tmp_path, CXX="/no/such/compiler", SEGINFER_NEED_CORE="1")
    assert built.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


RUN = """
import sys
sys.path += sys.argv[1:]
import numpy, seginfer, seginfer.export, seginfer.assets as assets
with seginfer.Segmenter.open(assets.SOCCER / "pitch.onnx") as segmenter:
    print(segmenter(numpy.zeros((90, 160, 3), numpy.uint8)).mask.shape, seginfer.__file__)
"""


def test_a_wheel_without_compiled_code_is_complete_and_runs(tmp_path: Path) -> None:
    wheel = build(tmp_path, SEGINFER_PURE="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in names_in(wheel) if name.endswith(".so")]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packages = Path(np.__file__).parents[1]
    done = call(sys.executable, "-S", "-c", RUN, tmp_path / "site", packages, cwd=tmp_path)  # no editable install
    assert done.stdout == f"(90, 160) {tmp_path / 'site' / 'seginfer' / '__init__.py'}\n", done.stderr


@pytest.mark.full
def test_the_wheel_holds_compiled_code_for_this_machine(wheel: Path) -> None:
    assert not wheel.name.endswith("-none-any.whl")
    assert [name for name in names_in(wheel) if name.startswith("seginfer/_ext.") and name.endswith(".so")]
    licences = {name.rpartition("/")[2] for name in names_in(wheel) if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "nanobind.txt", "robin_map.txt"}


@pytest.mark.full
def test_the_base_install_is_numpy_and_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    folder = environment(tmp_path, str(wheel))
    packages = json.loads(call(folder / "pip", "list", "--format=json", cwd=tmp_path).stdout)
    assert {package["name"] for package in packages} <= {"seginfer", "numpy", "pip", "setuptools"}
    info = "import seginfer.assets as a, seginfer; print(seginfer.read_model(a.SOCCER / 'pitch.onnx').spec.task)"
    assert call(folder / "python", "-c", info, cwd=tmp_path).stdout == "semantic\n"
    opening = "import seginfer.assets as a, seginfer; seginfer.Segmenter.open(a.SOCCER / 'pitch.onnx')"
    assert "pip install 'seginfer[cpu]'" in call(folder / "python", "-c", opening, cwd=tmp_path).stderr
    doctor = call(folder / "seginfer", "doctor", "--json", cwd=tmp_path)
    assert doctor.returncode == 1
    assert "seginfer[cpu]" in json.loads(doctor.stdout)["inference"]["remedy"]
    table = call(folder / "seginfer", "doctor", cwd=tmp_path)
    assert table.returncode == 1
    assert table.stderr == ""
    assert "pip install 'seginfer[cli]'" in table.stdout


@pytest.mark.full
def test_without_torch_the_demo_skips_the_export_and_runs_the_rest(wheel: Path, tmp_path: Path) -> None:
    folder = environment(tmp_path, f"{wheel}[cpu,cli]")
    assert call(folder / "python", "-c", "import torch", cwd=tmp_path).returncode != 0
    demo = call(folder / "seginfer", "demo", "-o", tmp_path / "demo", "--json", cwd=tmp_path)
    assert demo.returncode == 0, demo.stderr
    result = json.loads(demo.stdout)
    assert "export step was skipped" in result["export_skipped"]
    assert "pip install 'seginfer[export]'" in result["export_skipped"]
    assert result["certificate"]["decisive_agreement"] == 1.0
    assert all(Path(path).is_file() for path in [result["paths"]["report"], *result["paths"]["overlays"]])
    export = call(folder / "seginfer", "export", "a:b", "--spec", "s.json", "-o", "m.onnx", cwd=tmp_path)
    assert export.returncode == 2
    assert "pip install 'seginfer[export]'" in export.stderr
    assert export.stderr.count("\n") == 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CXX": "/no/such/compiler"}, "it was not built when seginfer was installed"),
        ({"SEGINFER_PURE": "1"}, "it was not built when seginfer was installed"),
    ],
    ids=["no compiler", "asked for"],
)
def test_without_a_compiler_the_wheel_is_pure_and_says_so(
    variables: dict[str, str], reason: str, tmp_path: Path
) -> None:
    wheel = build(tmp_path, **variables)
    assert wheel.name.endswith("-py3-none-any.whl")
    folder = environment(tmp_path, f"{wheel}[cpu]")
    doctor = call(folder / "seginfer", "doctor", "--json", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stderr
    core = json.loads(doctor.stdout)["compiled core"]
    assert core["found"] == ""
    assert reason in core["remedy"]
    assert "C++17 compiler" in core["remedy"]
    code = (
        "import logging, numpy, seginfer, seginfer.assets as a; logging.basicConfig(level='INFO');"
        "s = seginfer.Segmenter.open(a.SOCCER / 'pitch.onnx'); s(numpy.zeros((90, 160, 3), numpy.uint8));"
        "seginfer.Segmenter.open(a.SOCCER / 'pitch.onnx')"
    )
    logged = call(folder / "python", "-c", code, cwd=tmp_path).stderr
    assert logged.count("NumPy; no compiled core") == 1
