"""Tensors on a GPU as images and masks, and lent arrays: read and written where they lie; on the fake."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from fake_arrays import FakeDLPackTensor, FakeTensor
from fake_network import FakeDeviceBackend
from fake_pipelines import assert_same, both, on_gpu, picture, pipeline_of
from models import SPECS, make_spec

from seginfer import InputError, Segmenter, _native
from seginfer._inputs.formats import PixelFormat

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def backend(semantic_model: Path, world: fake_cuda_core.World) -> FakeDeviceBackend:
    """The network of three colours on the fake GPU."""
    del world
    return FakeDeviceBackend(semantic_model, ("logits",))


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def gpu_world(request: pytest.FixtureRequest, world: fake_cuda_core.World) -> fake_cuda_core.World:
    """Both kinds of GPU in turn."""
    world.is_integrated = request.param
    return world


@pytest.fixture
def no_host_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail for every copy of pixels by the host."""
    monkeypatch.setattr(_native, "copy", lambda *_: pytest.fail("the host copied pixels"))


def pitched(image: Any, room: int = 8) -> FakeTensor:
    """Return a tensor whose rows have room behind them."""
    wide = FakeTensor(np.full((image.shape[0], image.shape[1] + room, *image.shape[2:]), 77, np.uint8))
    wide.array[:, : image.shape[1]] = image
    return wide.view(wide.array[:, : image.shape[1]])


@pytest.mark.usefixtures("gpu_world")
@pytest.mark.parametrize("color", ["rgb", "bgra", "nv12", "uyvy"])
def test_images_on_the_gpu_are_read_there_with_any_pitch(color: PixelFormat, tmp_path: Path) -> None:
    with both(tmp_path, SPECS["semantic"], color) as (fake, host):
        for size, make in [((24, 32), FakeTensor), ((60, 50), pitched)]:
            image = picture(size, color)
            tensor: Any = make(image)  # type: ignore[operator]
            assert_same(fake(tensor, margin=True, confidence=True), host(image, margin=True, confidence=True))
            assert_same(fake(image), host(image))  # the frame is the same
            for found, expected in zip(fake([image, tensor]), host([image, image]), strict=True):
                assert_same(found, expected)
            tensor.close()


@pytest.mark.usefixtures("no_host_copies")
def test_nothing_crosses_the_host_on_the_way(backend: FakeDeviceBackend, gpu_world: fake_cuda_core.World) -> None:
    image, out = FakeTensor(picture((40, 50))), FakeTensor(np.zeros((40, 50), np.uint8))
    with on_gpu(backend) as segmenter:
        result: Any = segmenter(image, out=out)
        assert result.labels is out
        assert out.array.any()
        with pytest.raises(InputError, match="expected a mask in host memory, got out= as FakeTensor on a GPU"):
            np.asarray(result)
        with pytest.raises(InputError, match="copy `labels` to the host"):
            result.class_areas()
        assert "FakeTensor on a GPU" in repr(result)
    del gpu_world
    for tensor in (image, out):
        tensor.close()


@pytest.mark.usefixtures("gpu_world")
@pytest.mark.parametrize("name", ["semantic", "multilabel", "tiles", "labels", "center-crop"])
def test_masks_go_to_tensors_of_any_pitch(name: str, tmp_path: Path) -> None:
    spec = make_spec(resize="center-crop") if name == "center-crop" else SPECS[name]
    image, has_maps = picture((61, 50)), spec.output.kind != "labels"
    with both(tmp_path, spec) as (fake, host):
        expected = host(image, margin=has_maps)
        room = FakeTensor(np.full((*expected.labels.shape[:-1], 64), 77, expected.labels.dtype))
        out = room.view(room.array[..., 3:53])
        found = fake(image, out=out, margin=has_maps)
        np.testing.assert_array_equal(out.array, expected.labels)
        np.testing.assert_array_equal(found.margin, expected.margin)
        assert (room.array[..., 53:] == 77).all()
        assert (room.array[..., :3] == 77).all()
        room.close()


@pytest.mark.parametrize("is_dlpack", [False, True])
def test_work_of_the_callers_stream_comes_first(
    is_dlpack: bool, backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    image = picture((40, 50))
    with on_gpu(backend) as segmenter:
        expected = segmenter(image).mask
        callers = fake_cuda_core.Device(0).create_stream()
        tensor = FakeTensor(np.zeros_like(image), stream=None if is_dlpack else callers)
        out = FakeTensor(np.zeros((40, 50), np.uint8), stream=None if is_dlpack else callers)
        callers.fake_start(lambda: np.copyto(tensor.array, image))
        callers.fake_start(lambda: out.array.fill(9))
        given: list[Any] = [FakeDLPackTensor(one, callers) if is_dlpack else one for one in (tensor, out)]
        segmenter(given[0], out=given[1])
        np.testing.assert_array_equal(out.array, expected)
        callers.close()
    del world
    for one in (tensor, out):
        one.close()


BAD_IMAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "another device": (
        lambda: FakeTensor(picture((40, 50)), device=1),
        r"expected a tensor of CUDA device 0 \(A CPU\), where the model is, got FakeTensor of device 1; move it",
    ),
    "another device, by DLPack": (
        lambda: FakeDLPackTensor(FakeTensor(picture((40, 50)), device=1)),
        "got FakeDLPackTensor of device 1; move it there, or open the model on that device",
    ),
    "dtype": (lambda: FakeTensor(np.zeros((40, 50, 3), np.float32)), r"must be uint8.*got float32 \(40, 50, 3\)"),
    "shape": (
        lambda: FakeTensor(np.zeros((40, 50, 4), np.uint8)),
        r"must be uint8 \(H, W, 3\), got uint8 \(40, 50, 4\)",
    ),
    "channels first": (
        lambda: FakeTensor(np.zeros((3, 40, 50), np.uint8)),
        r"side by side, strides \(150, 3, 1\) in bytes, got \(50, 1, 2000\); make it contiguous",
    ),
    "stream": (lambda: FakeTensor(picture((40, 50)), stream=0), "on a valid stream, got FakeTensor .stream=0 is dis"),
}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_wrong_tensors_are_errors_and_no_copies(name: str, backend: FakeDeviceBackend) -> None:
    make, message = BAD_IMAGES[name]
    with on_gpu(backend) as segmenter:
        tensor = make()
        with pytest.raises(InputError, match=message):
            segmenter(tensor)
        tensor.close()
        segmenter(picture((40, 50)))


@pytest.mark.usefixtures("world")
def test_a_tensor_that_kernels_cannot_read_does_not_spoil_the_next_image(tmp_path: Path) -> None:
    image = picture((40, 50), "bgra")
    with both(tmp_path, SPECS["semantic"], "bgra") as (fake, host):
        fake(image)
        odd = FakeTensor(np.zeros(40 * 50 * 4 + 1, np.uint8))
        for _ in range(2):
            with pytest.raises(InputError, match=r"address and a pitch in multiples of 4 bytes.*copy it"):
                fake(odd.view(odd.array[1:].reshape(40, 50, 4)))
            assert_same(fake(image), host(image))
        odd.close()


@pytest.mark.usefixtures("world")
def test_wrong_outputs_are_errors(backend: FakeDeviceBackend) -> None:
    image, mask = picture((40, 50)), np.zeros((40, 50), np.uint8)
    with on_gpu(backend) as segmenter:
        for out, message in [
            (FakeTensor(mask, readonly=True), "out must be a writable uint8 array"),
            (FakeTensor(mask[1:]), r"of shape \(40, 50\), got uint8 \(39, 50\)"),
            (FakeTensor(mask, device=1), "got FakeTensor of device 1"),
            ((wide := FakeTensor(np.zeros((40, 100), np.uint8))).view(wide.array[:, ::2]), "side by side, got strides"),
        ]:
            with pytest.raises(InputError, match=message):
                segmenter(image, out=out)
            out.close()
        shared = FakeTensor(np.zeros((40, 150), np.uint8))
        tensor = shared.view(shared.array.reshape(40, 50, 3))
        with pytest.raises(InputError, match="out must not share memory with an image"):
            segmenter(tensor, out=shared.view(shared.array[:, 3:53]))
        shared.close()


@pytest.mark.usefixtures("world")
def test_pixels_on_the_cpu_do_not_take_tensors_of_a_gpu(backend: FakeDeviceBackend) -> None:
    tensor = FakeTensor(picture((40, 50)))
    with Segmenter(SPECS["semantic"], backend, pixels="cpu") as segmenter:
        with pytest.raises(InputError, match=r"expected arrays in host memory.*got FakeTensor on a GPU; copy it with"):
            segmenter(tensor)
        with pytest.raises(InputError, match="host memory, where pixels are computed"):
            segmenter(picture((40, 50)), out=tensor)
    tensor.close()


@pytest.mark.usefixtures("world")
def test_a_faulty_batch_leaves_tensors_as_they_are(backend: FakeDeviceBackend) -> None:
    out = FakeTensor(np.full((40, 50), 9, np.uint8))
    with on_gpu(backend) as segmenter:
        segmenter(picture((40, 50)), out=out)
        out.array.fill(9)
        backend.spoils = np.nan
        with pytest.raises(InputError, match="NaN"):
            segmenter(picture((40, 50)), out=out)
        assert (out.array == 9).all()
    out.close()


# ---------------------------------------------------------------------------------------------------------- buffers


@pytest.mark.usefixtures("gpu_world")
def test_lent_arrays_are_not_copied_by_the_host(
    tmp_path: Path, request: pytest.FixtureRequest, world: fake_cuda_core.World
) -> None:
    images = [picture((40, 50), seed=2 * i) for i in range(3)]
    with both(tmp_path, SPECS["semantic"]) as (fake, host):
        expected = [host(image).mask.copy() for image in images]
        lent = [fake.buffers((40, 50)) for _ in images]
        request.getfixturevalue("no_host_copies")
        for _ in range(2):
            for (image, mask), pixels, labels in zip(lent, images, expected, strict=True):
                image[...] = pixels
                mask[...] = 9
                assert fake(image, out=mask).mask is mask
                np.testing.assert_array_equal(mask, labels)
        fake([image for image, _ in lent], out=[mask for _, mask in lent])
        for pair, labels in zip(lent, expected, strict=True):
            np.testing.assert_array_equal(pair[1], labels)
    kept = [mask for _, mask in lent]
    del lent, image, mask, pair
    np.testing.assert_array_equal(kept[-1], expected[-1])  # the model is closed
    assert len(world.buffers) == 3
    kept.clear()
    gc.collect()
    assert not world.buffers


@pytest.mark.usefixtures("world")
def test_part_of_a_lent_mask_is_taken_too(tmp_path: Path) -> None:
    image = picture((30, 40))
    with both(tmp_path, make_spec(resize="center-crop")) as (fake, host):
        expected = host(image).mask
        room = fake.buffers((60, 80))[1]
        for part in (room[10:40, 7:47], room[::2, ::2], room[29::-1, :40]):
            room[...] = 77
            fake(image, out=part)
            np.testing.assert_array_equal(part, expected)
            assert (room == 77).sum() >= 60 * 80 - 30 * 40
        del room, part


def test_buffers_of_the_cpu_are_plain_arrays(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model, device="cpu", threads=1) as segmenter:
        image, mask = segmenter.buffers((40, 50))
        image[...] = picture((40, 50))
        np.testing.assert_array_equal(segmenter(image, out=mask).mask, segmenter(picture((40, 50))).mask)
        assert (image.shape, mask.shape) == ((40, 50, 3), (40, 50))
        assert image.dtype == mask.dtype == np.uint8
        with pytest.raises(InputError, match="image_hw must be"):
            segmenter.buffers((0, 5))


def test_an_integrated_gpu_shares_its_memory_with_the_host(
    backend: FakeDeviceBackend, world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seginfer._cuda.gpu import Gpu

    world.is_integrated = True
    monkeypatch.setattr(Gpu, "copy", lambda *_: pytest.fail("copied"))
    with on_gpu(backend) as segmenter:
        segmenter([picture((40, 50)), picture((50, 40))])
        assert ", in memory that host and GPU share, CUDA graphs" in segmenter.pipeline.description
        (context,) = pipeline_of(segmenter)._contexts._free
        (frame,) = context._frames.values()
        assert frame.nbytes >= 2 * 40 * 50 * 3
        assert context._bytes_kept <= 64 << 20
