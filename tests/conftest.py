"""What every test file shares: the GPU markers, hypothesis settings, seeded numbers and tiny model files."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import fake_cuda_core
import full_record
import hypothesis
import kernels_on_cpu as on_cpu
import numpy as np
import pytest
from models import SPECS, save_model
from shared import OPTIONAL, made_once, skip_or_fail

from seginfer import MissingDependencyError, ModelSpec, _native
from seginfer._system.driver import find_gpu, has_gpu
from seginfer._tensorrt.library import find_library

hypothesis.settings.register_profile("seginfer", deadline=None, database=None)
hypothesis.settings.load_profile("seginfer")


@cache
def engine_libraries() -> tuple[str, ...]:
    """The libraries here that run engines on this machine's GPU."""
    found = []
    for name in ("tensorrt", "tensorrt_rtx"):
        with suppress(MissingDependencyError):
            found.append(find_library(name, find_gpu() if has_gpu() else None).description)
    return tuple(found)


def _missing(item: pytest.Item) -> str:
    """Say what a test needs and this machine lacks."""
    if item.get_closest_marker("needs_cuda") is not None and not has_gpu():
        return "no CUDA device"
    if item.get_closest_marker("needs_tensorrt") is not None and not (has_gpu() and engine_libraries()):
        return "no CUDA device, or neither TensorRT nor TensorRT for RTX"
    if item.get_closest_marker("needs_cuda") is not None and _native.core is None:
        return f"nothing to compare a GPU with: {_native.describe()}"  # NumPy would be compared with itself
    return ""


class TestFile(pytest.Module):
    """A test file, which is skipped where one of the optional packages is missing."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return list(super().collect())
        except self.CollectError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ModuleNotFoundError):
                cause = cause.__cause__
            name = cause.name or "" if cause else ""
            if name.partition(".")[0] not in OPTIONAL:
                raise
            pytest.skip(f"needs {name}: pip install 'seginfer[dev]'", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Make the collector of a file."""
    file: pytest.Module = TestFile.from_parent(parent, path=module_path)
    return file


def pytest_configure(config: pytest.Config) -> None:
    """Leave one core to each worker, which inherits this: libraries start a thread per core else."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the file that takes longest, so that workers end together."""
    items.sort(key=lambda item: item.path.name != "test_zoo_table.py")


def pytest_collection_finish() -> None:
    """Let torch read its ONNX operators once per process.

    Each export parses the sources of all 500 anew, which takes longer than the rest of a small export.
    """
    if "torch" not in sys.modules:
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = cache(ONNXRegistry.from_torchlib)

    def copy(opset_version: int) -> ONNXRegistry:
        """Return a registry of its own, since callers may add to it."""
        found, own = read(opset_version), ONNXRegistry()
        own._opset_version = found.opset_version
        own.functions = {target: list(ways) for target, ways in found.functions.items()}
        return own

    setattr(ONNXRegistry, "from_torchlib", staticmethod(copy))  # noqa: B010


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test where what its markers name is missing; FAIL_WITHOUT_CUDA=1 makes that a failure."""
    if missing := _missing(item):
        skip_or_fail(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Keep the record of the full ring."""
    full_record.summarize(terminalreporter, exitstatus, config)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run."""
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def kernel_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA kernels as a library of the CPU; needs g++."""
    return made_once(tmp_path_factory, "kernels", on_cpu.build) / "kernels.so"


@pytest.fixture(scope="session")
def cpu(kernel_library: Path) -> on_cpu.Cpu:
    """What runs the CUDA kernels on the CPU."""
    return on_cpu.Cpu(ctypes.CDLL(str(kernel_library)))


@pytest.fixture
def world(cpu: on_cpu.Cpu) -> Iterator[fake_cuda_core.World]:
    """A machine with GPUs that are imitated on the CPU, in place of the real packages."""
    with fake_cuda_core.installed(cpu) as world:
        yield world


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
