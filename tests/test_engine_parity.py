"""Engines against PyTorch: certificates of one engine and of several builds, on stand-ins for driver and run-time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_tensorrt
import kernels_on_cpu as on_cpu
import pytest
import torch
from networks import Tiny, make_spec, pictures

from seginfer import BackendUnavailableError, InputError, Segmenter, build_engine
from seginfer._cli import main
from seginfer._media.images import write_image
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.engine_file import EngineFile
from seginfer._tensorrt.options import EngineOptions
from seginfer.export import certify, export_onnx
from seginfer.export.parity import builds
from seginfer.export.parity.builds import certify_builds

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SPEC = make_spec(resize="letterbox", pad_value=(255.0,), output={"stride": 4})
IMAGES = pictures((150, 220), (97, 64))
RTX = EngineOptions(library="tensorrt_rtx")


@pytest.fixture
def fakes(cpu: on_cpu.Cpu) -> Iterator[fake_tensorrt.Fakes]:
    with fake_cuda_core.installed(cpu), fake_tensorrt.installed() as fakes:
        yield fakes


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return Tiny(stride=4).eval()


@pytest.fixture(scope="module")
def path(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "m.onnx"
    export_onnx(module, SPEC, path, images=IMAGES)
    return path


@pytest.fixture
def engine(path: Path, fakes: fake_tensorrt.Fakes, tmp_path: Path) -> EngineFile:
    engine = build_engine(path, tmp_path / "m.engine", options=RTX)
    fakes.knows(engine, path)
    return engine


@pytest.fixture
def known(path: Path, fakes: fake_tensorrt.Fakes, monkeypatch: pytest.MonkeyPatch) -> list[EngineFile]:
    """Let every engine that is built run, and list them."""
    built: list[EngineFile] = []

    def build(*args: Any, **options: Any) -> EngineFile:
        built.append(build_engine(*args, **options))
        fakes.knows(built[-1], path)
        fakes.spoils = 1e-6 * len(built)
        return built[-1]

    monkeypatch.setattr(builds, "build_engine", build)
    return built


def test_an_engine_gets_a_certificate_of_its_own_graph(module: torch.nn.Module, engine: EngineFile) -> None:
    with Segmenter.open(engine.path) as segmenter:
        certificate = certify(module, segmenter, IMAGES)
    assert certificate.passed, certificate.summary()
    assert "TensorRT for RTX" in certificate.runtime
    assert "cuda:0" in certificate.runtime


def test_an_engine_that_computes_something_else_fails_in_the_network(
    module: torch.nn.Module, engine: EngineFile, fakes: fake_tensorrt.Fakes
) -> None:
    fakes.spoils = 1.0
    with Segmenter.open(engine.path) as segmenter:
        assert certify(module, segmenter, IMAGES).stage == "network"


def test_flips_are_counted_by_margin(module: torch.nn.Module, engine: EngineFile) -> None:
    with Segmenter.open(engine.path) as segmenter:
        certificate = certify(module, segmenter, IMAGES)
    edges = [count.margin_below for count in certificate.flips]
    assert edges[-1] is None
    assert edges[:-1] == sorted(edges[:-1])
    assert sum(count.pixels for count in certificate.flips) == certificate.pixels
    flipped = sum(count.flipped for count in certificate.flips)
    assert flipped == round((1 - certificate.pixel_agreement) * certificate.pixels)
    assert certificate.flips[-1].flipped == 0


def test_every_build_is_compared_with_pytorch_and_with_the_first(
    module: torch.nn.Module, path: Path, known: list[EngineFile]
) -> None:
    progress: list[tuple[int, int]] = []
    found = certify_builds(module, path, IMAGES, builds=3, options=RTX, on_progress=lambda *step: progress.append(step))
    assert len(known) == len(found.certificates) == len(found.agreement) == 3
    assert all(certificate.passed for certificate in found.certificates)
    assert found.agreement[0] == 1.0
    assert progress == [(n, 6) for n in range(1, 7)]
    assert not any(engine.path.exists() for engine in known)
    assert {certificate.pipeline_sha256 for certificate in found.certificates} == {known[0].key.digest()}


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_built(module: torch.nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "build_engine", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(BackendUnavailableError, match="driver"):
        certify_builds(module, path, IMAGES, builds=2)
    with pytest.raises(BackendUnavailableError, match="device='cpu'"):
        certify_builds(module, path, IMAGES, builds=2, device="cpu")


def test_no_build_is_no_comparison(module: torch.nn.Module, path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        certify_builds(module, path, IMAGES, builds=0)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, image in enumerate(IMAGES):
        write_image(tmp_path / f"{i}.png", image)
    return tmp_path


def test_the_command_line_compares_an_engine(
    capsys: pytest.CaptureFixture[str], engine: EngineFile, photos: Path
) -> None:
    arguments = "networks:Tiny", "--kwargs", '{"stride": 4}', "--images", photos / "0.png", photos / "1.png"
    code, result = run(capsys, "parity", engine.path, *arguments)
    assert (code, result["certificate"]["passed"]) == (0, True)
    assert result["certificate"]["pipeline_sha256"] == engine.key.digest()
    code, result = run(capsys, "parity", engine.path, *arguments, "--builds", 2)
    assert (code, result["kind"]) == (2, "InputError")


def test_the_command_line_compares_several_builds(
    capsys: pytest.CaptureFixture[str], path: Path, known: list[EngineFile], photos: Path
) -> None:
    arguments = "networks:Tiny", "--kwargs", '{"stride": 4}', "--images", photos / "0.png", "--builds", 2
    code, result = run(capsys, "parity", path, *arguments, "--backend", "tensorrt_rtx")
    assert (code, len(result["certificates"]), len(known)) == (0, 2, 2)
    assert result["agreement_with_first"][0] == 1.0
    code, result = run(capsys, "parity", path, *arguments)
    assert (code, result["kind"]) == (2, "InputError")


def test_the_command_line_runs_and_shows_an_engine(
    capsys: pytest.CaptureFixture[str], engine: EngineFile, photos: Path, tmp_path: Path
) -> None:
    code, result = run(capsys, "run", engine.path, photos / "0.png", "-o", tmp_path / "masks")
    assert (code, result["failed"]) == (0, [])
    assert "CUDA graphs" in result["backend"]
    code, result = run(capsys, "info", engine.path)
    assert (code, result["engine_sha256"]) == (0, engine.engine_sha256)
