"""The command line in a terminal: closed streams, signals, missing packages, hostile names, one line per error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import models
import numpy as np
import onnx
import pytest
from refusal import refuses

from seginfer import InputError, ModelFileError, SegInferError, attach_spec
from seginfer._cli import main
from seginfer._cli.output import Output
from seginfer._system.atomic import atomic_path
from seginfer.assets import SOCCER

MODEL = str(SOCCER / "pitch.onnx")
SEGINFER = [sys.executable, "-m", "seginfer"]


def call(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([*SEGINFER, *map(str, arguments)], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("command", [("info", MODEL), ("info", MODEL, "--json")])
def test_a_reader_that_leaves_early_is_no_error(command: tuple[str, ...]) -> None:
    process = subprocess.Popen([*SEGINFER, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [(f"info {MODEL}", 0), (f"info {MODEL} --json", 0), ("info no.onnx", 2), ("info no.onnx --json", 2)],
)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(command: str, code: int, closed: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m seginfer {command} {closed}", shell=True, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == (code != 0 and "2>" not in closed)


def test_tables_are_plain_text_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rich", "rich.table", "rich.text", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seginfer doctor"
    (line,) = [line for line in lines if line.startswith("rich ")]
    assert "missing" in line
    assert "pip install 'seginfer[cli]'" in line
    assert main(["info", MODEL]) == 0
    assert "verdict  " in capsys.readouterr().out


def test_a_wrong_instruction_set_is_named_and_ignored() -> None:
    done = call("doctor", "--json", SEGINFER_SIMD="AVX2")
    assert done.returncode == 0
    found = json.loads(done.stdout)["compiled core"]["found"]
    assert "SEGINFER_SIMD is ignored" in found
    assert "AVX2" in found
    assert done.stderr.count("\n") == 1, "inference says so as well"


def test_doctor_names_wheels_that_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "onnxruntime_gpu-1.18.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.18.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["onnxruntime"]["found"]
    assert "1.18.0: onnxruntime and onnxruntime-gpu overwrite each other; pip uninstall both" in found


def test_an_interrupt_that_a_library_turns_into_another_error_stays_one(tmp_path: Path) -> None:
    (tmp_path / "swallowing.py").write_text(
        "import os, signal, time\ndef build():\n    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(5)\n    except KeyboardInterrupt:\n        raise AttributeError('half imported')\n"
    )
    command = ("export", "swallowing:build", "--spec", SOCCER / "spec.json", "-o", tmp_path / "m.onnx")
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # pytest may ignore it
    code += "from seginfer._cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 130
    assert done.stderr == "seginfer: interrupted; finished files are complete, the unfinished one was deleted\n"


HOSTILE = "[/q][red]\x1b]0;owned\x07\x1b[31m"


def test_names_of_files_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Output(as_json=False).table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / HOSTILE.replace("/", "")))
    (tmp_path / HOSTILE.replace("/", "")).mkdir()
    assert main(["cache", "list"]) == 0
    assert main(["info", HOSTILE]) == 2
    for arguments in (["info", MODEL, f"--{HOSTILE}"], [HOSTILE]):
        with pytest.raises(SystemExit):
            main(arguments)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert out.count("[red]") == 4
    code = f"import logging; from seginfer._cli import main; main(['info', {MODEL!r}, '--json'])"
    code += f"; logging.getLogger('seginfer').warning({HOSTILE!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "seginfer: [/q][red]\\x1b]0;owned\\x07\\x1b[31m\n"


def test_messages_have_a_limited_length(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError(f"expected 1, got {'9' * 10_000_000}; correct it")
    assert len(str(error)) < 2100
    assert str(error).startswith("expected 1, got 999")
    assert str(error).endswith("999; correct it")
    assert main(["info", "x" * 100_000]) == 2
    with pytest.raises(SystemExit):
        main(["x" * 100_000])
    assert len(capsys.readouterr().err) < 6000


def test_errors_do_not_name_temporary_files(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    with refuses(ModelFileError, f"{target} contradicts m.onnx: "), atomic_path(target) as part:
        raise ModelFileError(f"{part} contradicts {part.name}: attach it again")
    spec = models.SPECS["semantic"]
    source = models.save_model(tmp_path / "source.onnx", spec)
    for name, words in (("m.engine", "expected an .onnx file"), ("no/m.onnx", "create it first")):
        with pytest.raises(SegInferError, match=words):
            attach_spec(source, spec, tmp_path / name)


def test_an_export_to_a_wrong_name_ends_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.json").write_text(models.SPECS["semantic"].to_json())
    for name, words in (("m.engine", "expected an .onnx file"), ("no/m.onnx", "create it first")):
        assert main(["export", "no.such:module", "--spec", "spec.json", "-o", name]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum", MODEL], "did you mean run?"),
        (["cache", "clean"], "did you mean clear?"),
        (["run", MODEL, "photoss/"], "did you mean photos?"),
        (["run", MODEL, "photos/a.pgn"], "did you mean photos/a.png?"),
    ],
)
def test_a_near_name_is_suggested(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    try:
        code: object = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert words in capsys.readouterr().err


def test_libraries_print_nothing_beside_our_line(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp", ".jp2"):
        encoded = cv2.imencode(suffix, picture)[1].tobytes()
        (photos / f"cut{suffix}").write_bytes(encoded[: len(encoded) * 2 // 3])
        (photos / f"flipped{suffix}").write_bytes(encoded[:-400] + bytes(200) + encoded[-200:])
    (photos / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(1000))
    clip = (SOCCER / "clip.webm").read_bytes()
    (photos / "cut.webm").write_bytes(clip[:60_000])
    (photos / "flipped.webm").write_bytes(clip[:30_000] + bytes(500) + clip[30_500:])
    done = call("run", models.save_model(tmp_path / "m.onnx", models.SPECS["semantic"]), photos, "-o", tmp_path / "o")
    assert done.returncode == 1
    assert done.stderr == ""
    model = models.make_onnx(models.SPECS["semantic"])
    model.graph.node[0].op_type = "Convolution"
    onnx.save(model, tmp_path / "bad.onnx")
    attach_spec(tmp_path / "bad.onnx", models.SPECS["semantic"], tmp_path / "bad.onnx")
    done = call("run", tmp_path / "bad.onnx", photos, "-o", tmp_path / "o")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
