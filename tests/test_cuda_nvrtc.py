"""Kernels come from the oldest NVRTC that knows a GPU, and doctor says which driver, NVRTC and extra fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import fake_driver
import fake_nvrtc
import pytest
from packaging.requirements import Requirement

from seginfer import BackendUnavailableError
from seginfer._cuda import compiler, fit
from seginfer._cuda.__main__ import ONLY_CUDA_13, main
from seginfer._cuda.kernels import OVERLAY
from seginfer._cuda.nvrtc import find_nvrtcs
from seginfer._system.driver import GpuInfo

ORIN = GpuInfo(0, "Orin", (8, 7), 1 << 35, "12.6", "540.4.0")
JETSON = {"python_version": "3.10", "python_full_version": "3.10.12", "platform_machine": "aarch64"}
WORKSTATION = {"python_version": "3.12", "python_full_version": "3.12.3", "platform_machine": "x86_64"}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without kernels, and an empty cache."""
    monkeypatch.setattr(compiler, "SHIPPED", tmp_path / "package")
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def both(places: Path) -> Iterator[None]:
    """NVRTC 12.9 and 13.0 beside each other."""
    with fake_nvrtc.installed(places, 12, 13):
        yield


def architecture_of(cubin: bytes) -> str:
    """Return the architecture in the flags of the ELF header."""
    flags = int.from_bytes(cubin[48:52], "little")
    return f"sm_{(flags >> 8 if fit.cuda_major(cubin) > 12 else flags) & 0xFF}"


def header(cubin: bytes) -> tuple[bytes, int, int]:
    """Return the magic number, EI_OSABI and EI_ABIVERSION."""
    return cubin[:4], cubin[7], cubin[8]


# ------------------------------------------------------------------------------------------------------ compilation


def test_every_nvrtc_here_writes_the_header_of_its_version() -> None:
    found = find_nvrtcs()
    if not found:
        pytest.skip("needs an NVRTC: pip install 'seginfer[cuda]'")
    for nvrtc in found:
        expected = {12: (b"\x7fELF", 0x33, 7), 13: (b"\x7fELF", 0x41, 8)}[nvrtc.version[0]]
        for name in nvrtc.architectures & {*compiler.ARCHITECTURES, *compiler.COMPATIBLE}:
            cubin = nvrtc.compile("__global__ void nothing() {}", [f"--gpu-architecture={name}"])
            assert header(cubin) == expected
            assert architecture_of(cubin) == name
            assert fit.cuda_major(cubin) == nvrtc.version[0]


def test_shipped_kernels_are_for_the_oldest_driver_that_can_load_them() -> None:
    for path in compiler.SHIPPED.glob("*.cubin"):
        cubin, name = path.read_bytes(), path.name.split("-")[0]
        assert architecture_of(cubin) == name
        assert fit.cuda_major(cubin) == (13 if name in ONLY_CUDA_13 else 12), path.name


@pytest.mark.usefixtures("both")
def test_a_release_takes_the_older_nvrtc_wherever_it_knows_the_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    found = {path.name.split("-")[0]: path.read_bytes() for path in compiler.SHIPPED.iterdir()}
    assert set(found) == set(compiler.ARCHITECTURES)
    assert {name for name, cubin in found.items() if fit.cuda_major(cubin) == 13} == set(ONLY_CUDA_13)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[-1] for line in lines].count("NVRTC 12.9") == len(compiler.ARCHITECTURES) - 1


@pytest.mark.parametrize("known", [(80, 90), ()], ids=["an older NVRTC", "no NVRTC 12"])
def test_a_release_for_new_drivers_alone_is_refused(
    known: tuple[int, ...], places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_nvrtc.installed(places, 13):
        if known:
            fake_nvrtc.install(places, 12, known)
        assert main([]) == 2
    message = capsys.readouterr().err
    assert "got them from NVRTC 13.0, and drivers for CUDA 12 do not load those" in message
    assert "pip install 'seginfer[release]'" in message


@pytest.mark.usefixtures("both")
def test_candidates_are_of_both_kinds() -> None:
    origins, found = zip(*compiler.cubins("sm_87", OVERLAY), strict=True)
    assert origins == ("NVRTC 12.9", "NVRTC 13.0")
    assert [fit.cuda_major(cubin) for cubin in found] == [12, 13]
    cached = {fit.cuda_major(cubin) for origin, cubin in compiler.cubins("sm_87", OVERLAY) if "NVRTC" not in origin}
    assert cached == {12, 13}, "and both are kept"


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(("gpu", "shipped"), compiler.COMPATIBLE.items())
def test_a_gpu_of_a_later_minor_version_starts_with_shipped_kernels(gpu: str, shipped: str) -> None:
    assert main([]) == 0
    origin, cubin = next(compiler.cubins(gpu, OVERLAY))
    assert origin == str(compiler.SHIPPED)
    assert cubin == next(compiler.read_cubins(compiler.SHIPPED, shipped))


def test_without_an_nvrtc_that_fits_the_error_says_so(places: Path) -> None:
    with fake_nvrtc.installed(places), pytest.raises(BackendUnavailableError, match=r"there is no NVRTC.*\[cuda12\]"):
        next(compiler.cubins("sm_87", OVERLAY))
    with (
        fake_nvrtc.installed(places, 12),
        pytest.raises(BackendUnavailableError, match=r"compiles for sm_110, NVRTC 12.9 cannot.*\[cuda13\]"),
    ):
        next(compiler.cubins("sm_110", OVERLAY))


def test_a_compilation_that_fails_shows_the_log(places: Path) -> None:
    fake_nvrtc.install(places, 13, fails=6)
    with (
        fake_nvrtc.installed(places),
        pytest.raises(BackendUnavailableError, match=r"NVRTC 13\.0 did not compile .*A FAILURE: a mistake; reinstall"),
    ):
        next(compiler.cubins("sm_87", OVERLAY))


def test_a_library_that_is_no_nvrtc_is_passed_over(places: Path) -> None:
    (places / "nvidia" / "a" / "lib").mkdir(parents=True)
    (places / "nvidia" / "a" / "lib" / "libnvrtc.so.13").write_text("not a library")
    with fake_nvrtc.installed(places, 13):
        assert [str(nvrtc) for nvrtc in find_nvrtcs()] == ["NVRTC 13.0"]


# ----------------------------------------------------------------------------------------------------------- doctor


def found_for(gpu: GpuInfo) -> str:
    origin, reason = fit.find_kernels(gpu)
    assert bool(origin) != bool(reason)
    return origin or reason


def test_the_driver_is_compared_with_nvrtc(places: Path) -> None:
    with fake_nvrtc.installed(places, 13):
        assert found_for(replace(ORIN, driver="13.0")) == "compiled by NVRTC 13.0 for sm_87 on the first start"
        assert found_for(ORIN) == (
            "no kernels for sm_87 and a driver for CUDA 12.6: those of NVRTC 13.0 need a driver for CUDA 13; "
            "pip install 'seginfer[cuda12]', or update the driver to 580 or newer"
        )
        fake_nvrtc.install(places, 12)
        find_nvrtcs.cache_clear()
        assert found_for(ORIN) == "compiled by NVRTC 12.9 for sm_87 on the first start"
        assert "NVRTC 13.0" in found_for(replace(ORIN, compute_capability=(11, 0), driver="13.0"))
    with fake_nvrtc.installed(places / "none"):
        assert "none are shipped, and there is no NVRTC; pip install 'seginfer[cuda12]'" in found_for(ORIN)
        assert found_for(replace(ORIN, driver="13.0")).endswith("pip install 'seginfer[cuda13]'")


@pytest.mark.usefixtures("both")
def test_the_driver_is_compared_with_shipped_kernels(tmp_path: Path) -> None:
    assert main([]) == 0
    with fake_nvrtc.installed(tmp_path / "none"):
        for gpu in (ORIN, replace(ORIN, driver="13.0")):
            assert found_for(gpu) == "shipped for sm_87"
        assert found_for(replace(ORIN, compute_capability=(12, 1))) == "shipped for sm_120"
        thor = replace(ORIN, compute_capability=(11, 0))
        assert "the shipped ones need a driver for CUDA 13" in found_for(thor)


@pytest.mark.parametrize(("version", "does_fit"), [(13000, True), (12060, False)])
def test_doctor_says_which_package_does_not_fit_the_driver(version: int, does_fit: bool, tmp_path: Path) -> None:
    if int(metadata.version("cuda-bindings").split(".")[0]) != 13:
        pytest.skip("made for cuda-bindings 13")
    fake_nvrtc.install(tmp_path, 12)
    environment = fake_driver.install(tmp_path, VERSION=version) | {"SEGINFER_CACHE": str(tmp_path / "cache")}
    code = f"sys.path.insert(0, {str(tmp_path)!r}); from seginfer._cli import main; main(['doctor', '--json'])"
    result = json.loads(fake_driver.run(environment, code))
    assert "12.9" in result["nvrtc"]["found"]
    kernels = result["kernels"]
    assert bool(kernels["found"]) is does_fit
    assert does_fit or "cuda-bindings 13" in kernels["remedy"]
    assert does_fit or "pip install 'seginfer[cuda12]', or update the driver" in kernels["remedy"]


# ----------------------------------------------------------------------------------------------------------- extras


def resolve(extra: str, machine: dict[str, str]) -> dict[str, str]:
    """Return the packages of an extra on a machine, with their versions, from the installed metadata."""
    found = {}
    for text in metadata.requires("seginfer") or ():
        wanted = Requirement(text)
        if wanted.marker is None or not wanted.marker.evaluate({**machine, "extra": extra}):
            continue
        if wanted.name == "seginfer":
            for name in wanted.extras:
                found.update(resolve(name, machine))
        elif wanted.marker.evaluate({**machine, "extra": ""}) is False:
            found[wanted.name] = str(wanted.specifier)
    return found


@pytest.mark.parametrize("machine", [JETSON, WORKSTATION], ids=["Jetson", "workstation"])
def test_extras_hold_packages_of_one_cuda_version(machine: dict[str, str]) -> None:
    both = {"cuda-core": ">=1.2"}
    twelve = both | {"cuda-bindings": "==12.9.*", "nvidia-cuda-nvrtc-cu12": ">=12.6"}
    thirteen = both | {"cuda-bindings": ">=13", "nvidia-cuda-nvrtc": ">=13"}
    assert resolve("cuda12", machine) == twelve
    assert resolve("cuda13", machine) == resolve("cuda", machine) == thirteen
    assert resolve("tensorrt", machine).items() >= thirteen.items()
    assert set(resolve("release", machine)) == {"nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"}


def test_extras_of_the_metadata_are_those_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == set(metadata.metadata("seginfer").get_all("Provides-Extra") or ())
