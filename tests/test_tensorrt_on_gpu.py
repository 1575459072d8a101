"""Engines on a GPU: built, loaded, run as one graph per frame, and held against PyTorch and ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from models import SPECS, make_spec
from numpy.typing import NDArray
from shared import share_kernels

from seginfer import EngineOptions, EngineProfile, InputError, ModelSpec, Segmenter, build_engine
from seginfer._media.images import read_image
from seginfer._system.driver import find_gpu
from seginfer._tensorrt.library import TENSORRT, find_library
from seginfer.assets import SOCCER

pytestmark = [pytest.mark.needs_cuda, pytest.mark.needs_tensorrt]

Image = NDArray[np.uint8]

PITCH = SOCCER / "pitch.onnx"


@pytest.fixture(scope="module")
def backend() -> str:
    return "tensorrt" if find_library(gpu=find_gpu()).name == TENSORRT else "tensorrt_rtx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    share_kernels(tmp_path_factory, tmp_path / "cache")
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, size: tuple[int, int]) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def sample(name: str) -> Image:
    pytest.importorskip("cv2")
    return read_image(SOCCER / "samples" / f"{name}.png")


def test_an_engine_says_what_pytorch_says(backend: str) -> None:
    images = [sample(name) for name in ("near", "robot", "stand")]  # the export half needs OpenCV, too
    from seginfer.export import certify, load_source, load_weights

    source = load_source("seginfer.export.zoo.unet:soccer_unet")
    load_weights(source.module, SOCCER / "pitch.safetensors")
    with Segmenter.open(PITCH, backend=backend) as segmenter:
        certificate = certify(source.module, segmenter, images)
    assert certificate.passed, certificate.summary()


def test_the_whole_frame_is_one_graph(backend: str) -> None:
    image = sample("near")
    with Segmenter.open(PITCH, backend=backend, image_hw=image.shape[:2]) as segmenter:
        segmenter(image)
        assert "CUDA graphs" in segmenter.pipeline.description


def test_graph_launches_and_the_host_pipeline_agree(
    any_spec: ModelSpec, make_model: Callable[..., Path], backend: str
) -> None:
    path = make_model(any_spec)
    size = None if any_spec.input.size else ((16, 16), (40, 56), (128, 128))
    images = [picture(seed, (37 + seed, 53)) for seed in range(3)]
    options = EngineOptions(profiles=(EngineProfile((1, 2, 4), size),))
    with (
        Segmenter.open(path, backend=backend, engine=options) as on_gpu,
        Segmenter.open(path, backend=backend, engine=options, pixels="cpu") as on_host,
    ):
        for _ in range(2):
            for got, expected in zip(on_gpu(images), on_host(images), strict=True):
                np.testing.assert_array_equal(got.mask, expected.mask)


def test_a_second_open_takes_the_engine_from_the_cache(backend: str, cache: Path) -> None:
    with Segmenter.open(PITCH, backend=backend):
        pass
    (engine,) = cache.glob("*.engine")
    written = engine.stat().st_mtime_ns
    with Segmenter.open(PITCH, backend=backend):
        pass
    assert [path.stat().st_mtime_ns for path in cache.glob("*.engine")] == [written]


def test_several_profiles_take_their_own_batches(make_model: Callable[..., Path], backend: str) -> None:
    spec = SPECS["semantic"]
    options = EngineOptions(profiles=(EngineProfile.fixed(1), EngineProfile.fixed(4)))
    images = [picture(seed, (24, 32)) for seed in range(6)]
    with Segmenter.open(make_model(spec), backend=backend, engine=options) as segmenter:
        together = segmenter(images)
        for image, result in zip(images, together, strict=True):
            assert (segmenter(image).mask != result.mask).mean() < 1e-3  # profiles have kernels of their own
        assert {result.timings.batch_size for result in together} == {2, 4}


def test_sizes_outside_every_profile_are_refused_and_the_segmenter_lives_on(
    make_model: Callable[..., Path], backend: str
) -> None:
    spec = make_spec(size=None, multiple_of=8, resize="pad")
    options = EngineOptions(profiles=(EngineProfile(size=((16, 16), (64, 64), (128, 128))),))
    with Segmenter.open(make_model(spec), backend=backend, engine=options) as segmenter:
        with pytest.raises(InputError, match="profile"):
            segmenter(picture(0, (256, 256)))
        assert segmenter(picture(0, (64, 64))).mask.shape == (64, 64)


def test_threads_get_the_masks_of_their_own_images(backend: str) -> None:
    images = [np.roll(sample("near"), 40 * k, axis=1) for k in range(8)]
    failures: list[int] = []
    with Segmenter.open(PITCH, backend=backend) as segmenter:
        expected = [segmenter(image).mask for image in images]

        def work(k: int) -> None:
            for _ in range(50):
                if (segmenter(images[k]).mask != expected[k]).any():
                    failures.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.full
def test_200_times_opened_run_and_closed_leave_no_memory_behind(backend: str, semantic_model: Path) -> None:
    image = picture(0, (24, 32))

    def cycle() -> None:
        with Segmenter.open(semantic_model, backend=backend) as segmenter:
            segmenter(image)

    for _ in range(20):  # what libraries allocate once
        cycle()
    before, _ = torch.cuda.mem_get_info()
    for _ in range(200):
        cycle()
    after, _ = torch.cuda.mem_get_info()
    assert before - after < 8 << 20


def test_an_engine_knows_its_gpu(backend: str, tmp_path: Path) -> None:
    del backend
    engine = build_engine(PITCH, tmp_path / "pitch.engine")
    assert engine.key.gpu is not None
    assert engine.key.gpu.name == find_gpu().name
    assert engine.report.evidence == "engine"
    assert set(engine.report.precisions) == {"float32"}
    with Segmenter.open(engine.path) as segmenter:
        assert segmenter(np.zeros((360, 640, 3), np.uint8)).mask.shape == (360, 640)
