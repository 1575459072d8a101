"""GpuPipeline on a GPU, around PyTorch and ONNX Runtime: recorded, equal to the host's path, and freed again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from models import SPECS, save_model
from numpy.typing import NDArray
from shared import need_cuda_provider

from seginfer import BackendError, InputError, ModelSpec, Segmenter, postprocess, preprocess
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.tensors import DeviceMemory, DeviceTensor
from seginfer._pipelines.gpu import GpuPipeline
from seginfer.backends._protocol import Backend

pytestmark = pytest.mark.needs_cuda

SIZES = [(48, 64), (61, 50), (90, 200), (1, 1), (48, 20)]
Image = NDArray[np.uint8]


class InTuple(torch.nn.Module):
    """What the torch backend takes."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.module(x),)


def torch_backend(spec: ModelSpec | None = None) -> Any:
    from seginfer.backends.torch import TorchBackend

    module = InTuple(networks.Tiny(spec.num_channels if spec else 3)).eval().cuda()
    return TorchBackend(module, ("logits",))


def onnxruntime_backend(path: Path, spec: ModelSpec) -> Any:
    need_cuda_provider()
    from seginfer.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(save_model(path / "m.onnx", spec), (spec.output.name,), device="cuda")


def on_gpu(backend: Backend, spec: ModelSpec, **options: Any) -> Segmenter:
    segmenter = Segmenter(spec, backend, pixels="cuda", **options)
    assert isinstance(segmenter.pipeline, GpuPipeline)
    return segmenter


def images() -> list[Image]:
    return [picture for size in SIZES for picture in networks.pictures(size)]


def check_whole_path(segmenter: Segmenter, image: Image) -> None:
    """Hold batch and mask to what the CPU makes around the output that the network really yielded."""
    spec = segmenter.spec
    trace = segmenter.trace(image)
    np.testing.assert_array_equal(trace.batch, preprocess([image], spec)[0])
    expected = postprocess(trace.output, trace.geometry.tiles(spec.input), spec)[0]
    np.testing.assert_array_equal(trace.mask, expected)
    again = segmenter(image)
    assert (again.labels != expected).mean() < 1e-3, "the replay's network may round otherwise, but not more"


def check_is_recorded(segmenter: Segmenter) -> None:
    assert "CUDA graphs" in segmenter.pipeline.description
    pipeline: Any = segmenter.pipeline
    frames = [frame for context in pipeline._contexts._free for frame in context._frames.values()]
    assert frames
    assert all(len(frame.graphs) == 1 for frame in frames)


@pytest.mark.parametrize("task", ["semantic", "binary", "multilabel"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center-crop"])
def test_the_path_around_pytorch_is_recorded_and_exact(task: str, resize: str) -> None:
    spec = networks.make_spec(task, resize=resize)
    with on_gpu(torch_backend(spec), spec) as segmenter:
        for image in images():
            check_whole_path(segmenter, image)
        check_is_recorded(segmenter)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_the_path_around_onnxruntime_is_exact_and_says_that_it_is_not_recorded(name: str, tmp_path: Path) -> None:
    with on_gpu(onnxruntime_backend(tmp_path, SPECS[name]), SPECS[name]) as segmenter:
        for image in images():
            check_whole_path(segmenter, image)
        assert "plain launches: ONNX Runtime" in segmenter.pipeline.description


def test_images_of_several_sizes_and_a_batch_of_fewer_are_right() -> None:
    spec = networks.make_spec()
    pictures = images()[:3]
    with on_gpu(torch_backend(), spec) as gpu, Segmenter(spec, torch_backend(), pixels="cpu") as host:
        for count in (3, 1, 2, 3):
            for found, expected in zip(gpu(pictures[:count]), host(pictures[:count]), strict=True):
                assert (found.labels != expected.mask).mean() < 1e-3


def test_threads_say_what_one_thread_says() -> None:
    spec = networks.make_spec()
    pictures = images() * 8
    with on_gpu(torch_backend(), spec) as segmenter, ThreadPoolExecutor(4) as pool:
        expected = [segmenter(image).mask for image in pictures]
        for found, mask in zip(pool.map(segmenter, pictures), expected, strict=True):
            assert (found.labels != mask).mean() < 1e-3
        check_is_recorded(segmenter)


def free_bytes(gpu: Gpu) -> int:
    gpu.use()
    code, free, _ = gpu.driver.cuMemGetInfo()
    assert int(code) == 0
    return int(free)


def test_two_hundred_models_leave_no_memory_behind() -> None:
    spec, gpu = networks.make_spec(), Gpu()
    image = images()[1]
    found = []
    for _ in range(200):
        with on_gpu(torch_backend(), spec) as segmenter:
            segmenter(image)
            pipeline: Any = segmenter.pipeline
        assert pipeline.gpu.live_buffers == 0
        torch._C._cuda_clearCublasWorkspaces()  # up to 32 MiB per stream, which torch keeps
        torch.cuda.empty_cache()
        found.append(free_bytes(gpu))
    gpu.close()
    assert min(found[20:]) >= found[19] - (8 << 20), "memory grows with the number of models"


def test_tensors_and_lent_arrays_are_read_and_filled_after_work_of_their_stream() -> None:
    spec, image = networks.make_spec(), np.ascontiguousarray(images()[0])
    with on_gpu(torch_backend(spec), spec) as segmenter:
        expected = segmenter(image).mask
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
            tensor = torch.from_numpy(image).cuda(non_blocking=True)
            out = torch.full(expected.shape, 9, dtype=torch.uint8, device="cuda")
            result: Any = segmenter(tensor, out=out)
            assert result.labels is out
        np.testing.assert_array_equal(out.cpu().numpy(), expected)
        lent, mask = segmenter.buffers((image.shape[0], image.shape[1]))
        lent[...] = image
        np.testing.assert_array_equal(segmenter(lent, out=mask).mask, expected)


class Troubled:
    """A backend whose executions do what no capture allows."""

    def __init__(self, backend: Any, trouble: Callable[[Any], None]) -> None:
        self._backend, self._trouble = backend, trouble

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Any:
        execution = self._backend.execution(shape, memory)
        enqueue, trouble = execution.enqueue, self._trouble

        def troubled(stream: Any) -> None:
            trouble(stream)
            enqueue(stream)

        execution.enqueue = troubled
        return execution


def wait_for_stream(stream: Any) -> None:
    stream.sync()


def wait_for_device(stream: Any) -> None:
    del stream
    torch.cuda.synchronize()


@pytest.mark.parametrize("trouble", [wait_for_stream, wait_for_device])
def test_a_capture_that_breaks_leaves_process_and_slot_usable(trouble: Callable[[Any], None]) -> None:
    spec = networks.make_spec()
    with on_gpu(Troubled(torch_backend(), trouble), spec) as segmenter:
        for image in images():
            check_whole_path(segmenter, image)
        assert "plain launches: " in segmenter.pipeline.description
    with on_gpu(torch_backend(), spec) as segmenter:
        check_whole_path(segmenter, images()[0])
        check_is_recorded(segmenter)


def test_memory_that_runs_out_is_an_error_and_smaller_work_still_runs() -> None:
    gpu = Gpu()
    with pytest.raises(BackendError, match="GPU memory ran out while allocating a buffer"):
        gpu.allocate(1 << 45)
    buffer = gpu.upload(np.arange(10))
    found = np.zeros(10, np.int64)
    gpu.download(buffer, found, gpu.stream)
    assert found.tolist() == list(range(10))
    assert gpu.live_buffers == 1
    gpu.close()
    assert gpu.live_buffers == 0


def test_values_that_are_not_finite_are_an_error_and_the_next_frame_is_fine() -> None:
    spec, backend = networks.make_spec(), torch_backend()
    with on_gpu(backend, spec) as segmenter:
        expected = segmenter(images()[1]).mask
        bias = backend._module.module.last.bias.data
        kept = bias.clone()
        bias[0] = float("nan")
        torch.cuda.synchronize()  # the segmenter's streams do not wait for torch's
        with pytest.raises(InputError, match="NaN or infinite"):
            segmenter(images()[1])
        bias.copy_(kept)
        torch.cuda.synchronize()
        np.testing.assert_array_equal(segmenter(images()[1]).mask, expected)


def test_an_execution_says_where_its_tensors_lie() -> None:
    gpu = Gpu()
    execution = torch_backend().execution((2, 3, 48, 64), DeviceMemory(gpu))
    for tensor in (execution.input, *execution.outputs.values()):
        assert isinstance(tensor, DeviceTensor)
        assert tensor.address % 16 == 0
        assert tensor.shape == (2, 3, 48, 64)
    execution.close()
    gpu.close()
