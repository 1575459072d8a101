"""`seginfer build`: options, tables, JSON, exit codes, the progress bars, and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models import make_spec, save_model
from nvidia_models import convolution, save
from rtx import needs_rtx

from seginfer._cli import _Signals, main
from seginfer._cli.build import show_engine
from seginfer._cli.output import Output
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.library import find_library
from seginfer.assets import SOCCER

PITCH = str(SOCCER / "pitch.onnx")

pytestmark = needs_rtx


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["build", *arguments, "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def test_the_engine_is_written_where_it_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, PITCH, "-o", str(tmp_path / "p.engine"))
    assert shown["path"] == str(tmp_path / "p.engine")
    assert (tmp_path / "p.engine").stat().st_size == shown["report"]["engine_bytes"]
    assert shown["report"]["precisions"] == {"float32": 23}


def test_without_a_place_it_goes_into_the_cache_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = told(capsys, PITCH), told(capsys, PITCH)
    assert Path(first["path"]).parent == tmp_path / "cache"
    assert first == again
    assert told(capsys, PITCH, "--rebuild")["report"]["build_s"] != first["report"]["build_s"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", [[1, 1, 1]]),
        ("1,4,16", [[1, 1, 1], [4, 4, 4], [16, 16, 16]]),
        ("1,1", [[1, 1, 1]]),
        ("1-8", [[1, 8, 8]]),
        ("1,2-4", None),
    ],
)
def test_batches_are_numbers_or_ranges(
    text: str, expected: list[list[int]] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = told(capsys, PITCH, "-o", str(tmp_path / "p.engine"), "--batch", text)["report"]
    found = [[profile[name][0] for name in ("min", "opt", "max")] for profile in report["profiles"]]
    assert found == (expected or [[1, 1, 1], [2, 4, 4]])


def test_every_size_is_built_for_every_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_model(tmp_path / "m.onnx", make_spec(size=None, multiple_of=8, resize="pad"))
    report = told(capsys, str(path), "--batch", "1,2", "--size", "24x32,48x64")["report"]
    assert [profile["max"] for profile in report["profiles"]] == [
        [batch, 3, *size] for batch in (1, 2) for size in ([24, 32], [48, 64])
    ]


def test_options_become_those_of_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"workspace-mb": 64, "optimization-level": 1, "max-aux-streams": 0}
    arguments = [str(word) for name, number in numbers.items() for word in (f"--{name}", number)]
    options = told(capsys, PITCH, "-o", str(tmp_path / "p.engine"), *arguments)["key"]["options"]
    assert {name: options[name.replace("-", "_")] for name in numbers} == numbers
    assert options["cuda_graph"]
    assert not told(capsys, PITCH, "--no-cuda-graph")["key"]["options"]["cuda_graph"]


def test_tables_say_what_the_engine_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", PITCH, "-o", str(tmp_path / "p.engine"), "--batch", "1,4"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (find_library().description, "46 kernels in float32", "66 in 2 profiles", "list of layers", "MB"):
        assert words in text
    for words in ("4 x 3 x 192 x 320", "? x 8 x 192 x 320", "every GPU that TensorRT for RTX supports"):
        assert words in text


def test_an_engine_of_which_the_library_says_nothing_is_not_called_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = build_engine(PITCH, tmp_path / "p.engine")
    silent = replace(engine.report, precisions={})
    shown = {}
    for name, report in (("silent", silent), ("no weights", replace(silent, weighted_layers=0))):
        show_engine(Output(as_json=False), replace(engine, report=report))
        shown[name] = " ".join(capsys.readouterr().out.split())
    assert "unknown: the library does not report it" in shown["silent"]
    assert "not verified" in shown["silent"]
    assert "no kernels with weights found" in shown["no weights"]
    assert "list of layers" in shown["no weights"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "4-"], "a range like 1-8"),
        (["--batch", "x"], "a range like 1-8"),
        (["--size", "512"], "512x1024"),
        (["--workspace-mb", "0"], "at least 1"),
        (["--dla-core", "-1"], "at least 0"),
        (["--library", "cudnn"], "tensorrt_rtx"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["build", PITCH, *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "8-1"], "profile.batch must rise"),
        (["--size", "48x48,64x64"], "must be 192 x 320"),
        (["--optimization-level", "6"], "within 0..5"),
        (["--dla-core", "0"], "sees 0 DLA cores"),
        (["--device", "cpu"], "got --device cpu"),
        (["--device", "gpu"], "cuda:<index>"),
        (["--device", "cuda:7"], "cuda:7"),
        (["--library", "tensorrt"], "NVIDIA GPU"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", PITCH, "-o", str(tmp_path / "p.engine"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.engine*"))


def test_a_model_without_a_spec_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(save(convolution, tmp_path / "m.onnx"))]) == 2
    assert "seginfer attach" in capsys.readouterr().err


def on_terminal(*arguments: str) -> str:
    """Run the command line with a terminal as its standard error, and return what that showed."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "seginfer", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end was closed
        pass
    os.close(leader)
    assert process.wait(60) == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "\n")


def test_phases_are_shown_inside_of_phases_on_a_terminal_only(tmp_path: Path) -> None:
    target = str(tmp_path / "p.engine")
    shown = on_terminal("build", PITCH, "-o", target)
    assert re.search(r"^Building engine .*/6", shown, re.MULTILINE)
    assert re.search(r"^  \w.*[0-9]+/[0-9]+", shown, re.MULTILINE)
    assert re.search(r"^    \w.*[0-9]+/[0-9]+", shown, re.MULTILINE)
    assert on_terminal("build", PITCH, "-o", target, "--json").strip() == ""
    command = [sys.executable, "-m", "seginfer", "build", PITCH, "-o", target]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_build_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """A wide range of sizes and the highest level take this builder longer than the test waits."""
    path = save_model(tmp_path / "m.onnx", make_spec(size=None, resize="pad"))
    (tmp_path / "m.engine").write_bytes(b"old")
    profiles = ",".join(str(n) for n in range(1, 200))
    command = [sys.executable, "-m", "seginfer", "build", str(path), "-o", str(tmp_path / "m.engine")]
    process = subprocess.Popen(
        [*command, "--batch", profiles],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a background job starts with it ignored
    )
    deadline = time.monotonic() + 120
    while not (workers := _children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert len(workers) == 1
    assert not Path(f"/proc/{workers[0]}").exists()
    assert (tmp_path / "m.engine").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.engine", "m.onnx"]


def test_a_signal_that_the_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _Signals(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
