"""TensorRT's libraries: found, started, and their messages collected."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rtx import needs_rtx

from seginfer import MissingDependencyError
from seginfer._cli import doctor
from seginfer._errors import BackendUnavailableError
from seginfer._system.driver import GpuInfo
from seginfer._tensorrt import build, engines, key, library
from seginfer._tensorrt.inspect import inspect_engine
from seginfer._tensorrt.library import RTX, TENSORRT, Library, MessageLog, find_library
from seginfer._tensorrt.options import EngineOptions
from seginfer._tensorrt.parse import parse
from seginfer.assets import SOCCER

PITCH = SOCCER / "pitch.onnx"


def test_without_either_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_MODULES", dict.fromkeys(library._MODULES, ("no_such_module",)))
    with pytest.raises(MissingDependencyError, match=r"pip install 'seginfer\[check\]'") as caught:
        find_library()
    assert "\n" not in str(caught.value)


def gpu_of(name: str, *capability: int) -> GpuInfo:
    return GpuInfo(0, name, (capability[0], capability[1]), 1 << 34, "13.0", "580.65.06")


H200 = gpu_of("NVIDIA H200", 9, 0)


@needs_rtx
@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (12, 0)])
def test_gpus_that_tensorrt_for_rtx_names_are_supported(capability: tuple[int, int]) -> None:
    assert find_library("tensorrt_rtx", gpu_of("RTX", *capability)).name == RTX


@needs_rtx
@pytest.mark.parametrize(
    "gpu",
    [H200, gpu_of("Orin", 8, 7), gpu_of("NVIDIA Thor", 11, 0), gpu_of("NVIDIA B200", 10, 0)],
    ids=str,
)
@pytest.mark.parametrize("requested", ["auto", "tensorrt_rtx"])
def test_gpus_that_it_does_not_name_are_refused_before_a_build_and_tensorrt_is_named(
    gpu: GpuInfo, requested: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "has_gpu", lambda: True)
    monkeypatch.setattr(key, "has_gpu", lambda: True)
    monkeypatch.setattr(key, "find_gpu", lambda _: gpu)
    monkeypatch.setattr(library, "_MODULES", library._MODULES | {TENSORRT: ("no_such_module",)})
    major, minor = gpu.compute_capability
    with pytest.raises(BackendUnavailableError, match=r"runs on compute capabilities 7\.5, .* 12\.0") as caught:
        engines.build_engine(PITCH, options=EngineOptions(library=requested))
    assert f"got {gpu.name} ({major}.{minor}); use TensorRT there" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_tensorrt_is_taken_where_both_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "has_gpu", lambda: True)
    monkeypatch.setattr(library, "_MODULES", library._MODULES | {TENSORRT: ("json",)})
    assert find_library("auto", H200).name == TENSORRT


@needs_rtx
def test_doctor_says_that_the_library_is_not_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    monkeypatch.setattr(doctor, "find_gpu", lambda: H200)
    found = doctor._tensorrt()
    assert (found.found, "use TensorRT there" in found.remedy) == ("", True)


@needs_rtx
@pytest.mark.parametrize(("gpu", "targets"), [(gpu_of("NVIDIA T4", 7, 5), 1), (H200, 0), (None, 0)])
def test_engines_are_built_for_the_gpu_here(gpu: GpuInfo | None, targets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines for all GPUs exclude Turing. `seginfer check` builds them where the GPU here is of another kind."""
    parsed = parse(find_library(), PITCH)
    monkeypatch.setattr(build, "has_gpu", lambda: gpu is not None)
    monkeypatch.setattr(build, "find_gpu", lambda: gpu)
    config = build.create_config(parsed, [], EngineOptions())
    assert config.num_compute_capabilities == targets
    if targets:
        assert config.get_compute_capability(0) == parsed.library.module.ComputeCapability.CURRENT


# A library of CUDA 13 says this above a driver of CUDA 12.
OLD_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/checkMacros.cpp:250 "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)


@needs_rtx
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (OLD_DRIVER, "cudaError 35: CUDA driver version is insufficient for CUDA runtime version;"),
        ("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)", "out of memory;"),
    ],
)
def test_a_library_that_does_not_start_says_why(said: str, reason: str) -> None:
    real = find_library().module

    def refuse(logger: Any) -> None:
        logger.log(real.ILogger.Severity.ERROR, said)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    class Module:
        __version__ = "11.0"
        ILogger = real.ILogger
        Builder = Runtime = staticmethod(refuse)

    found = Library(TENSORRT, Module)
    for start in (lambda: parse(found, PITCH), lambda: inspect_engine(found, b"", [], has_gpu=True)):
        with pytest.raises(BackendUnavailableError, match=r"TensorRT 11\.0 does not start here") as caught:
            start()
        for words in (reason, "update NVIDIA's driver", "free GPU memory", "fits the driver"):
            assert words in str(caught.value)


def test_messages_of_a_library_are_collected_by_threads_at_once() -> None:
    log = MessageLog()
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(20_000):
                with log.collect() as messages:
                    log.add("ERROR", name)
                assert name in {message.text for message in messages}
        except BaseException as failure:
            failures.append(failure)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert not log._collections
