"""`seginfer check` and what `seginfer doctor` says of it: tables, JSON, exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nvidia_models import CRASHING, NEEDS_PLUGIN, SUPPORTED, UNSUPPORTED, model, node, save

from seginfer import MissingDependencyError
from seginfer._cli import main
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.library import find_library
from seginfer.assets import SOCCER
from seginfer.export import check_tensorrt


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    try:
        library = find_library()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    if has_gpu():
        pytest.skip(f"{library.description} builds more where there is a GPU")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    made = {
        "supported": SUPPORTED["convolution"],
        "unsupported": UNSUPPORTED["unpooling"][0],
        "plugin": NEEDS_PLUGIN["RoiAlign"][0],
        "crashing": CRASHING["block size 0"],
    }
    return {name: str(save(make, tmp_path / f"{name}.onnx")) for name, make in made.items()}


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["supported"], 0),
        (["supported", "unsupported", "plugin"], 1),
        (["crashing"], 2),
        (["crashing", "supported", "unsupported"], 2),
        (["plugin", "supported"], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst_file(
    names: list[str], code: int, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *(files[name] for name in names), "--json"]) == code
    result = json.loads(capsys.readouterr().out)
    if names == ["crashing"]:
        assert result["kind"] == "BackendError"
        return
    assert [r["path"] for r in result["reports"]] == [files[name] for name in names if name != "crashing"]
    assert [f["path"] for f in result["failed"]] == [files[name] for name in names if name == "crashing"]


def test_tables_name_what_is_in_the_way(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *files.values()]) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "3 (1 correlation, 2 kgen)" in text
    for word in ("supported", "unpool", "MaxUnpool", "needs plugin", "roi/RoiAlign", "not checked", "SIGFPE"):
        assert word in text


def test_names_of_nodes_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = node("MaxUnpool", "x i", "y", "\x1b]0;owned\x07", kernel_shape=[2, 2])
    path = save(lambda: model([hostile], i=np.zeros((1, 3, 32, 32), np.int64)), tmp_path / "m.onnx")
    assert main(["check", str(path)]) == 1
    assert "\x1b]0" not in capsys.readouterr().out


def test_the_function_and_the_command_report_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(SOCCER / "pitch.onnx")
    assert main(["check", path, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["reports"]
    report = check_tensorrt(path)
    assert (shown["status"], shown["kernels"], shown["layers"]) == (report.status, report.kernels, report.layers)
    assert shown["kernel_kinds"] == report.kernel_kinds
    assert report.summary().startswith("supported")


def test_verbose_says_what_is_at_work(files: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="seginfer"):
        assert main(["check", files["supported"], "-v"]) == 0
    said = [record.getMessage() for record in caplog.records]
    path, by = files["supported"], find_library().description
    assert said == [f"{path}: {by}, parsing", f"{path}: {by}, building"]


def test_the_time_limit_is_an_argument(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", files["supported"], "--timeout", "60", "--json"]) == 0
    with pytest.raises(SystemExit):
        main(["check", files["supported"], "--timeout", "0"])
    assert "at least 1" in capsys.readouterr().err


def test_a_signal_ends_the_check_and_its_worker(tmp_path: Path) -> None:
    """On a chain of thousands of nodes the library takes minutes, and answers no signal."""
    count = 20_000
    chain = [node("Relu", f"t{i}" if i else "x", f"t{i + 1}" if i < count - 1 else "y") for i in range(count)]
    path = save(lambda: model(chain), tmp_path / "m.onnx")
    process = subprocess.Popen(
        [sys.executable, "-m", "seginfer", "check", str(path)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(3)
    workers = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert len(workers) == 1
    assert not Path(f"/proc/{workers[0]}").exists()


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_doctor_names_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensorrt"]["found"] == find_library().description
