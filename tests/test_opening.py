"""Ring 4: opening and closing a Segmenter: which backend and device run, why, and what is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from models import SPECS, make_onnx
from onnx import TensorProto, helper

from seginfer import (
    BackendError,
    BackendUnavailableError,
    InputError,
    ModelFileError,
    Segmenter,
    attach_spec,
    read_model,
)
from seginfer.assets import SOCCER
from seginfer.backends import open_backend
from seginfer.backends._onnxruntime_session import CPU, CUDA
from seginfer.backends.onnxruntime import OnnxRuntimeBackend

IMAGE = np.zeros((24, 32, 3), np.uint8)
HAS_CUDA_PROVIDER = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_a_closed_segmenter_refuses_to_run(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model) as segmenter:
        backend = segmenter.backend
    for call in (segmenter, segmenter.trace):
        with pytest.raises(BackendError, match="closed; open it again"):
            call(IMAGE)
    with pytest.raises(BackendError, match="closed"):
        backend.infer(np.zeros((1, 3, 24, 32), np.float32))
    segmenter.close()  # a second time is harmless


def test_the_context_closes_when_the_block_fails(semantic_model: Path) -> None:
    with pytest.raises(KeyError), Segmenter.open(semantic_model) as segmenter:
        raise KeyError
    with pytest.raises(BackendError):
        segmenter(IMAGE)


def test_the_backend_says_what_runs_where_and_why(semantic_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, logger="seginfer"),
        Segmenter.open(semantic_model, device="cpu", threads=3) as segmenter,
    ):
        text = repr(segmenter.backend)
        assert text in repr(segmenter)
    assert text == f"<onnxruntime {onnxruntime.__version__} on cpu, 3 threads; device 'cpu' was requested>"
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("INFO", text)]


@pytest.mark.skipif(HAS_CUDA_PROVIDER, reason="this ONNX Runtime has a CUDA provider")
def test_without_cuda_auto_says_why_it_is_the_cpu_and_cuda_is_refused(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model) as segmenter:
        assert "this ONNX Runtime has no CUDA provider" in repr(segmenter.backend)
    for backend in ("auto", "onnxruntime"):
        for device in ("cuda", "cuda:1"):
            with pytest.raises(BackendUnavailableError, match=r"seginfer\[gpu\]"):
                Segmenter.open(semantic_model, backend=backend, device=device)


class Session(SimpleNamespace):
    """A session of ONNX Runtime that can be kept in a set of weak references, as the real one can."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_sessions_do_not_spin_and_on_a_gpu_fp32_is_not_tf32_and_nothing_is_searched(
    device: str, semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def open_session(_: str, options: onnxruntime.SessionOptions, providers: list[Any]) -> Any:
        asked.extend((options, providers))
        return Session(
            get_providers=lambda: [CUDA if device != "cpu" else CPU],
            get_inputs=lambda: [SimpleNamespace(name="image", shape=[1, 3, 24, 32])],
        )

    monkeypatch.setattr("seginfer.backends.onnxruntime.load_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    backend = OnnxRuntimeBackend(semantic_model, ("logits",), device=device, threads=3)
    options, providers = asked
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 3
    on_gpu = {"device_id": 1, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    assert providers == ([CPU] if device == "cpu" else [(CUDA, on_gpu), CPU])
    assert backend.device == device


def test_a_backend_that_does_not_exist_is_refused(semantic_model: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"auto or one of onnxruntime.*'openvino'"):
        Segmenter.open(semantic_model, backend="openvino")


@pytest.mark.parametrize("device", ["gpu", "cpu:0", "cuda:x", ""])
def test_a_device_that_does_not_exist_is_refused(device: str, semantic_model: Path) -> None:
    with pytest.raises(InputError, match="device must be"):
        Segmenter.open(semantic_model, device=device)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_what_is_no_number_of_threads_is_refused(threads: Any, semantic_model: Path) -> None:
    with pytest.raises(InputError, match="threads must be an integer from 1"):
        Segmenter.open(semantic_model, threads=threads)


@pytest.mark.parametrize("color", ["gray", "argb", "BGR"])
def test_a_colour_that_the_network_cannot_take_is_refused(color: Any, semantic_model: Path) -> None:
    with pytest.raises(InputError, match="color"):
        Segmenter.open(semantic_model, color=color)


def test_an_open_backend_yields_arrays_that_belong_to_the_caller(semantic_model: Path) -> None:
    backend = open_backend(read_model(semantic_model), threads=2)
    batch = np.random.default_rng(1).normal(size=(2, 3, 24, 32)).astype(np.float32)
    first = backend.infer(batch)
    kept = first["logits"].copy()
    backend.infer(batch + 1)
    np.testing.assert_array_equal(first["logits"], kept)
    refilled = backend.infer(batch + 1, first)
    assert refilled is first
    np.testing.assert_array_equal(first["logits"], batch + 1)


@pytest.mark.parametrize("flaw", ["strided", "read-only"])
def test_a_backend_writes_only_where_it_can(flaw: str, semantic_model: Path) -> None:
    backend = open_backend(read_model(semantic_model))
    array = np.zeros((1, 3, 24, 64), np.float32)[..., ::2]
    array = array if flaw == "strided" else array.copy()
    array.flags.writeable = flaw != "read-only"
    with pytest.raises(InputError, match="writable and contiguous"):
        backend.infer(np.ones((1, 3, 24, 32), np.float32), {"logits": array})
    assert not array.any()


def test_only_the_outputs_that_the_spec_names_are_computed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = make_onnx(SPECS["semantic"])
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["aux"]))
    model.graph.output.insert(0, helper.make_tensor_value_info("aux", TensorProto.FLOAT, ["N", 3, 24, 32]))
    onnx.save(model, path)
    attach_spec(path, SPECS["semantic"], path)
    image = np.zeros((24, 32, 3), np.uint8)
    image[..., 2] = 9
    with Segmenter.open(path) as segmenter:
        assert list(segmenter.backend.infer(np.ones((1, 3, 24, 32), np.float32))) == ["logits"]
        assert (segmenter(image).mask == 2).all()


def test_a_model_is_opened_while_the_interpreter_ends() -> None:
    script = (
        "import threading, time, numpy, seginfer, seginfer.assets as assets\n"
        "def work():\n"
        "    time.sleep(0.5)\n"
        "    with seginfer.Segmenter.open(assets.SOCCER / 'pitch.onnx', device='cpu') as segmenter:\n"
        "        print(segmenter(numpy.zeros((64, 64, 3), numpy.uint8)).mask.shape)\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "(64, 64)\n", done.stderr


def test_a_model_is_opened_where_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Segmenter.open(SOCCER / "pitch.onnx", device="cpu", threads=1) as segmenter:
        assert segmenter.spec.task == "semantic"


def test_damage_is_reported_before_what_the_runtime_makes_of_it(tmp_path: Path) -> None:
    """A byte that makes the graph unreadable for ONNX Runtime alone."""
    data = bytearray((SOCCER / "pitch.onnx").read_bytes())
    at = data.index(b"Conv")
    data[at] = ord("X")
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match="not the file that its certificate"):
        Segmenter.open(tmp_path / "m.onnx", device="cpu")
