"""The driver's answers: a GPU in every detail, or the one reason why there is none, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import fake_driver
import pytest
from refusal import refuses

from seginfer import BackendUnavailableError, InputError
from seginfer._system.driver import find_gpu, has_gpu, release_of

_FIND = """
from seginfer import BackendUnavailableError
from seginfer._system.driver import find_gpu, has_gpu
try:
    print(find_gpu({index}))
except BackendUnavailableError as error:
    print(error)
print(has_gpu())
"""


def _ask(environment: dict[str, str], index: int = 0) -> tuple[str, bool]:
    said, is_there = fake_driver.run(environment, _FIND.format(index=index)).splitlines()
    return said, is_there == "True"


def test_a_gpu_is_described_in_every_detail(tmp_path: Path) -> None:
    environment = fake_driver.install(tmp_path, GPUS=2, VERSION=12060)
    first, is_there = _ask(environment)
    assert is_there
    for word in ("index=0", "'First GPU'", "(8, 6)", f"memory_bytes={8 << 30}", "driver='12.6'", "multiprocessors=16"):
        assert word in first
    second, _ = _ask(environment, 1)
    for word in ("index=1", "'Second GPU'", "(8, 9)", f"memory_bytes={16 << 30}", "multiprocessors=8"):
        assert word in second


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        pytest.param({"INIT": 100}, ("sees no GPU", "nvidia-smi"), id="no device"),
        pytest.param({"GPUS": 0}, ("sees no GPU", "nvidia-smi"), id="a count of none"),
        pytest.param({"VERSION": 11080}, ("supports CUDA 11.8", "at least 12.0", "update"), id="old driver"),
        pytest.param({"INIT": 803}, ("differ in version", "803", "restart"), id="half an update"),
        pytest.param({"INIT": 34}, ("stub", "LD_LIBRARY_PATH"), id="the toolkit's stub"),
        pytest.param({"INIT": 777}, ("cuInit returned 777", "restart"), id="unheard of"),
        pytest.param({"NAME_FAILS": 999}, ("cuDeviceGetName returned 999", "dmesg"), id="failure behind the start"),
        pytest.param({"FOREIGN": 1}, ("not NVIDIA's driver", "cuInit"), id="another library of that name"),
    ],
)
def test_what_is_wrong_with_a_driver_is_said_precisely(
    macros: dict[str, int], words: tuple[str, ...], tmp_path: Path
) -> None:
    said, is_there = _ask(fake_driver.install(tmp_path, **macros))
    assert not is_there
    for word in words:
        assert word in said


def test_a_gpu_that_is_not_among_those_there_names_those_that_are(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    said, is_there = _ask(fake_driver.install(one), 1)
    assert "expected GPU 1, the driver sees one GPU, which is 0" in said
    assert is_there
    said, _ = _ask(fake_driver.install(two, GPUS=2), 2)
    assert "expected GPU 2, the driver sees GPUs 0 to 1" in said


def test_a_gpu_that_the_environment_hides_is_looked_for_there(tmp_path: Path) -> None:
    environment = fake_driver.install(tmp_path, INIT=100) | {"CUDA_VISIBLE_DEVICES": ""}
    said, _ = _ask(environment)
    assert "CUDA_VISIBLE_DEVICES is ''" in said
    assert "correct CUDA_VISIBLE_DEVICES" in said


@pytest.mark.skipif(has_gpu(), reason="there is a driver here")
def test_without_a_driver_the_error_says_how_to_get_one() -> None:
    with pytest.raises(BackendUnavailableError, match=r"driver is not installed.*install it.*--gpus all") as caught:
        find_gpu()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", [-1, True, "0", 1.0])
def test_an_index_that_is_none_is_refused(index: object) -> None:
    with refuses(InputError, "from 0", repr(index)):
        find_gpu(index)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
            "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
            "535.183.01",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)\n",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n", "540.4.0"),
        ("nothing of the kind", ""),
    ],
)
def test_the_release_is_read_from_what_the_kernel_module_says(text: str, release: str) -> None:
    assert release_of(text) == release


@pytest.mark.needs_cuda
def test_the_gpu_of_this_machine_is_plausible() -> None:
    gpu = find_gpu()
    assert has_gpu()
    assert gpu.name
    assert (5, 0) <= gpu.compute_capability < (20, 0)
    assert gpu.memory_bytes > 1 << 30
    assert gpu.multiprocessors > 0
    assert tuple(map(int, gpu.driver.split("."))) >= (12, 0)
