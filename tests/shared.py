"""Folders that the workers of one test run share, so that what takes long is made once; and what a machine lacks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

OPTIONAL = ("av", "cv2", "onnxruntime", "pycocotools", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Packages that a machine with a GPU may lack. Tests without them run there."""

HIDE = f"import sys; sys.modules.update(dict.fromkeys({tuple(name for name in OPTIONAL if name != 'onnxruntime')}))"
"""Code that hides them. `seginfer.export` needs ONNX Runtime."""


def skip_or_fail(missing: str) -> None:
    """Skip a test of a GPU, for what the machine lacks; FAIL_WITHOUT_CUDA=1 makes that a failure."""
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"{missing}, and FAIL_WITHOUT_CUDA=1 asks for it", pytrace=False)
    pytest.skip(missing)


def need_cuda_provider() -> None:
    """Skip, or fail, where ONNX Runtime is missing or runs on the CPU alone."""
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime-gpu: pip install 'seginfer[gpu]'")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        remedy = "pip uninstall onnxruntime; pip install 'seginfer[gpu]'"
        skip_or_fail(f"ONNX Runtime {ort.__version__} runs on the CPU alone ({remedy})")


def share_kernels(factory: pytest.TempPathFactory, cache: Path) -> None:
    """Let a test's own cache hold the kernels that an earlier test compiled."""
    cache.mkdir(mode=0o700)
    (cache / "kernels").symlink_to(made_once(factory, "compiled", lambda _: None))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` fills once per run, in whichever worker needs it first; nobody writes to it later."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(f"{name}.part")
            part.mkdir(exist_ok=True)
            make(part)
            part.rename(folder)
    return folder
