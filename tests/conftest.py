"""What every test file shares: the CUDA marker, hypothesis settings, seeded numbers and tiny model files."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from models import SPECS, save_model

from seginfer import ModelSpec

hypothesis.settings.register_profile("seginfer", deadline=None, database=None)
hypothesis.settings.load_profile("seginfer")


@cache
def cuda_device_count() -> int:
    """Number of CUDA devices, asked of the driver itself."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    is_ok = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if is_ok else 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked needs_cuda where there is no CUDA device; FAIL_WITHOUT_CUDA=1 makes that a failure."""
    if item.get_closest_marker("needs_cuda") is None or cuda_device_count() > 0:
        return
    if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("no CUDA device, and FAIL_WITHOUT_CUDA=1 asks for one", pytrace=False)
    pytest.skip("no CUDA device")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Build the network of a spec, attach the spec, and return the file's path."""

    def make(spec: ModelSpec, *, batch: int | str = "N", name: str = "model.onnx") -> Path:
        return save_model(tmp_path / name, spec, batch=batch)

    return make


@pytest.fixture
def semantic_model(make_model: Callable[..., Path]) -> Path:
    """Three classes, the strongest colour wins; any number of 24 x 32 images."""
    return make_model(SPECS["semantic"])


@pytest.fixture
def fixed_batch_model(make_model: Callable[..., Path]) -> Path:
    """The same, but the graph takes exactly two images."""
    return make_model(SPECS["semantic"], batch=2, name="fixed_batch.onnx")


@pytest.fixture(params=sorted(SPECS))
def any_spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every kind of network in turn."""
    return SPECS[request.param]
