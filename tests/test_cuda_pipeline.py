"""GpuPipeline without a GPU says what the host's path says: real launches on a fake cuda-core, kernels on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from fake_network import FakeDeviceBackend, array_at
from fake_pipelines import SIZES, assert_same, both, on_gpu, picture, pipeline_of
from models import SPECS, make_spec
from native import LAYOUTS, YUV_FORMATS

from seginfer import ModelSpec, Segmenter
from seginfer._inputs.formats import PixelFormat

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_kind_of_network_says_what_the_host_path_says(
    name: str, tmp_path: Path, world: fake_cuda_core.World
) -> None:
    spec = SPECS[name]
    has_maps = spec.output.kind != "labels"
    with both(tmp_path, spec) as (fake, host):
        for seed, size in enumerate([*SIZES, *SIZES]):
            image = picture(size, seed=seed)
            for maps in (False, has_maps):
                pair = (segmenter(image, confidence=maps, margin=maps) for segmenter in (fake, host))
                assert_same(*pair)
        assert "CUDA graphs" in fake.pipeline.description
    assert len(world.launched) >= 20
    assert not world.executables
    assert not world.graphs


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center-crop", "pad", "tile"])
@pytest.mark.parametrize("color", [*[one for one in LAYOUTS if one != "gray"], *YUV_FORMATS[::5]], ids=str)
def test_every_format_and_policy_says_what_the_host_path_says(
    resize: str, color: PixelFormat, tmp_path: Path, world: fake_cuda_core.World
) -> None:
    options: dict[str, Any] = {"tile_margin": 5, "multiple_of": 2} if resize == "tile" else {}
    spec = make_spec(resize=resize, **options)
    sizes = [(24, 32), (10, 8)] if resize == "pad" else SIZES
    with both(tmp_path, spec, color) as (fake, host):
        for seed, size in enumerate(sizes):
            image = picture(size, color, seed)
            assert_same(fake(image, confidence=True, margin=True), host(image, confidence=True, margin=True))
        assert "CUDA graphs" in fake.pipeline.description
    assert world.launched


@pytest.mark.usefixtures("world")
def test_gray_images_say_what_the_host_path_says(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    spec = make_spec("binary", color="gray")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 24, 32])
        for name in (spec.input.name, spec.output.name)
    ]
    node = helper.make_node("Neg", [spec.input.name], [spec.output.name])
    model = helper.make_model(
        helper.make_graph([node], "gray", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    path = tmp_path / "gray.onnx"
    onnx.save(model, path)
    with (
        on_gpu(FakeDeviceBackend(path, ("logits",)), spec) as fake,
        Segmenter(spec, FakeDeviceBackend(path, ("logits",)), pixels="cpu") as host,
    ):
        image = picture((30, 41), "gray", 1)
        for one in (image, image[..., None]):
            assert_same(fake(one, margin=True, confidence=True), host(one, margin=True, confidence=True))


@pytest.mark.parametrize("name", ["semantic", "multilabel", "letterbox", "labels", "dynamic size"])
def test_images_of_several_sizes_are_one_batch(name: str, tmp_path: Path, world: fake_cuda_core.World) -> None:
    images = [picture(size, seed=i) for i, size in enumerate([(24, 32), (20, 30), (21, 31)])]
    with both(tmp_path, SPECS[name]) as (fake, host):
        for _ in range(2):
            for found, expected in zip(fake(images), host(images), strict=True):
                assert_same(found, expected)
                assert found.timings.batch_size == 3
    assert len(world.launched) == 2


def test_tiles_of_several_images_are_filled_over_several_batches(tmp_path: Path, world: fake_cuda_core.World) -> None:
    images = [picture((70, 50), seed=1), picture((9, 100), seed=2)]
    for most in (1, 3, None):
        with both(tmp_path, SPECS["tiles"], most=most) as (fake, host):
            for found, expected in zip(fake(images, margin=True), host(images, margin=True), strict=True):
                np.testing.assert_array_equal(found.labels, expected.labels)
                np.testing.assert_array_equal(found.margin, expected.margin)
    assert len(world.launched) > 10


def test_tiles_of_one_image_share_its_upload(tmp_path: Path, world: fake_cuda_core.World) -> None:
    spec, image = SPECS["tiles"], picture((60, 70))
    with both(tmp_path, spec) as (fake, _):
        fake([image, image])
        contexts = pipeline_of(fake)._contexts
        (keys,) = [list(context._frames) for context in contexts._free]
    assert all(len(key.image_sizes) <= 2 < len(key.owners) for key in keys)
    assert world.launched


@pytest.mark.usefixtures("world")
def test_places_that_no_image_fills_are_zeros_also_after_a_fuller_batch(tmp_path: Path) -> None:
    images = [picture((24, 32), seed=i) for i in range(3)]
    with both(tmp_path, SPECS["semantic"], most=4, places=4) as (fake, host):
        for count in (3, 1, 2):
            for found, expected in zip(fake(images[:count]), host(images[:count]), strict=True):
                assert_same(found, expected)
            backend: Any = fake.backend
            (execution,) = backend.opened
            batch = array_at(execution.input)
            assert batch.shape[0] == 4
            assert [bool(place.any()) for place in batch] == [i < count for i in range(4)]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", ["semantic", "multilabel", "tiles"])
def test_results_go_to_arrays_with_any_strides(name: str, tmp_path: Path) -> None:
    with both(tmp_path, SPECS[name]) as (fake, host):
        image = picture((61, 50))
        expected = host(image).labels
        room = np.full((*expected.shape[:-2], 122, 150), 77, np.uint8)
        out = room[..., ::-2, ::3]
        assert fake(image, out=out).labels is out
        np.testing.assert_array_equal(out, expected)
        assert (room[..., 0::2, :] == 77).all()


@pytest.mark.usefixtures("world")
def test_a_trace_holds_what_the_network_took_and_yielded(any_spec: ModelSpec, tmp_path: Path) -> None:
    with both(tmp_path, any_spec) as (fake, host):
        found, expected = (segmenter.trace(picture((40, 50))) for segmenter in (fake, host))
    for name in ("batch", "output", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
