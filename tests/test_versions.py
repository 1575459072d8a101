"""The device half on every Python that pyproject.toml names, the oldest with the lowest versions of its packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYTHONS = re.findall(r"Programming Language :: Python :: (3\.\d+)", SETTINGS)

# Tests of the device half that need neither torch nor an engine.
TESTS = (
    *("bad_files", "bad_input", "bad_native", "bad_spec", "calls", "cuda_contexts", "cuda_failures", "cuda_pipeline"),
    *("native_loading", "native_mask", "native_overlay", "native_preprocess", "onnx_file", "opening", "output_arrays"),
    *("output_folder", "own_backend", "pictures", "segmentation", "segmenter", "spec", "videos"),
)
NEEDS = ("hypothesis", "pillow", "pycocotools", "pytest")

pytestmark = pytest.mark.full


def lowest(*names: str) -> list[str]:
    """Return requirements of the lowest versions that pyproject.toml states."""
    return [f"{name}=={re.search(rf'{name}>=([0-9.]+)', SETTINGS)[1]}.*" for name in names]  # type: ignore[index]


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that can make environments, from PATH or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python{version}"))]
    for python in filter(None, found):
        if subprocess.run([python, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return python
    return None


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command, in an environment without this one's settings of Python, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("version", PYTHONS)
def test_the_device_half_works(version: str, tmp_path: Path) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"needs Python {version}")
    is_oldest = version == PYTHONS[0]
    call(python, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    packages = lowest("numpy", "onnxruntime", "onnx", "opencv-python-headless", "av", "rich") if is_oldest else ["onnx"]
    call(tmp_path / "venv/bin/pip", "install", "-q", f"{ROOT}[cpu,cli]", *packages, *NEEDS, cwd=tmp_path)
    files = [ROOT / "tests" / f"test_{name}.py" for name in TESTS]
    plain = ("-q", "-o", "addopts=-m 'not full'", "-p", "no:cacheprovider", "--basetemp", tmp_path / "basetemp")
    printed = call(tmp_path / "venv/bin/python", "-m", "pytest", *plain, *files, cwd=tmp_path)
    assert re.search(r"\b\d{3,} passed", printed), printed[-2000:]
