"""Ctrl-C and SIGTERM end `seginfer run` within a moment, also while a network computes without end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import onnx
import pytest
from fake_pipelines import picture
from models import make_spec
from onnx import TensorProto, helper

from seginfer import attach_spec


def save_endless(path: Path) -> Path:
    """Save a graph whose loop adds nothing to its input, for hours."""
    spec = make_spec(size=(24, 32))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Mul", ["x", "one"], ["x_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 32]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_next", TensorProto.FLOAT, [1, 3, 24, 32]),
        ],
    )
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 24, 32]) for name in ("image", "logits")]
    weights = [
        helper.make_tensor("count", TensorProto.INT64, [], [1 << 40]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    loop = helper.make_node("Loop", ["count", "yes", "image"], ["logits"], body=body)
    graph = helper.make_graph([loop], "endless", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    attach_spec(path, spec, path)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_network_that_never_ends_can_be_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    model = save_endless(tmp_path / "m.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), picture((24, 32)))
    command = [sys.executable, "-m", "seginfer", "run", str(model), str(tmp_path / "a.png"), "-o", str(tmp_path / "o")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    reset = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731  # a background job starts with it ignored
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=reset) as process:  # type: ignore[call-overload]
        used = Path(f"/proc/{process.pid}/stat")
        while int(used.read_text().split()[13]) < 400:  # hundredths of a second: imports are done by far
            time.sleep(0.05)
            assert process.poll() is None
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - start < 20, "a second on an idle machine"
