"""A forked child may close, drop, use or keep an open Segmenter: it neither crashes nor waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_network import FakeDeviceBackend
from fake_pipelines import on_gpu, picture
from refusal import refuses

from seginfer import BackendError, Segmenter

SOCCER = Path(__file__).parent.parent / "seginfer" / "assets" / "soccer" / "pitch.onnx"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SCRIPT = """
import gc, os, signal, sys
import numpy as np
from seginfer import Segmenter
segmenter = Segmenter.open({model!r}, device="cpu", threads={threads})
image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
mask = segmenter(image).mask
if os.fork() == 0:
    signal.alarm(20)
    {action}
    print("the last words")
    sys.exit(3)  # an end with all destructors
_, status = os.wait()
assert (segmenter(image).mask == mask).all()
segmenter.close()
sys.exit(os.waitstatus_to_exitcode(status) != 3)
"""
ACTIONS = {
    "close": "segmenter.close()",
    "drop": "del segmenter; gc.collect()",
    "end": "pass",
    "use": "assert (segmenter(image).mask == mask).all()",
    "use, then close": "segmenter(image); segmenter.close()",
}


@pytest.mark.parametrize(("action", "threads"), [*((name, 2) for name in ACTIONS), ("end", 1), ("close", 4)])
def test_a_forked_child_ends_well(action: str, threads: int) -> None:
    script = SCRIPT.format(model=str(SOCCER), threads=threads, action=ACTIONS[action])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the last words\n"


def in_child(work: Callable[[], Any]) -> int:
    """Return the exit status of a fork that does this: 0 if nothing was raised."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.usefixtures("world")
def test_a_gpu_refuses_a_forked_child_in_words(semantic_model: Path) -> None:
    backend: Any = FakeDeviceBackend(semantic_model, ("logits",))
    with on_gpu(backend) as segmenter:
        image = np.ascontiguousarray(picture((48, 64)))
        mask = segmenter(image).mask

        def use() -> None:
            with refuses(BackendError, "forked process", "spawn"):
                segmenter(image)
            Segmenter.close(segmenter)

        assert in_child(use) == 0
        np.testing.assert_array_equal(segmenter(image).mask, mask)


def test_a_fork_waits_while_a_model_is_opened() -> None:
    script = (
        "import os, sys, threading, time, seginfer.assets as assets\n"
        "from seginfer import Segmenter\n"
        "stop = threading.Event()\n"
        "def work():\n"
        "    while not stop.is_set():\n"
        "        Segmenter.open(assets.SOCCER / 'pitch.onnx', device='cpu').close()\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "for _ in range(12):\n"
        "    time.sleep(0.013)\n"
        "    if os.fork() == 0:\n"
        "        sys.exit(0)\n"
        "    assert os.wait()[1] == 0\n"
        "stop.set()\n"
        "thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
