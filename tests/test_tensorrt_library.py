"""TensorRT's libraries: found, started, and their messages collected."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from rtx import needs_rtx

from seginfer import MissingDependencyError
from seginfer._errors import BackendUnavailableError
from seginfer._tensorrt import library
from seginfer._tensorrt.inspect import inspect_engine
from seginfer._tensorrt.library import TENSORRT, Library, MessageLog, find_library
from seginfer._tensorrt.parse import parse
from seginfer.assets import SOCCER

PITCH = SOCCER / "pitch.onnx"


def test_without_either_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_MODULES", dict.fromkeys(library._MODULES, ("no_such_module",)))
    with pytest.raises(MissingDependencyError, match=r"pip install 'seginfer\[check\]'") as caught:
        find_library()
    assert "\n" not in str(caught.value)


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
