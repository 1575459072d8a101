"""The command line: what it writes and prints, its exit codes, and how it ends on bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import cv2
import models
import numpy as np
import pytest
from networks import Tiny, make_spec
from picture_files import read_picture
from safetensors.torch import save_file

from seginfer import read_model
from seginfer._cli import main
from seginfer._cli.inputs import sample
from seginfer._media.video import VideoReader
from seginfer.assets import SOCCER

MODEL, SPEC, WEIGHTS = (str(SOCCER / name) for name in ("pitch.onnx", "spec.json", "pitch.safetensors"))
BROKEN = ["broken.jpg", "broken.mp4", "dangling.png", "empty.png"]
COMMANDS = ("demo", "run", "export", "parity", "attach", "info", "check", "doctor")

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json; return exit code and the object it printed."""

    def call(*arguments: object) -> tuple[int, Any]:
        code = main([str(argument) for argument in (*arguments, "--json")])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("robot", "near"):
        shutil.copyfile(SOCCER / "samples" / f"{name}.png", folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    assert f"examples:\n  seginfer {command}" in text
    assert "--json" in text


def test_run_and_info_say_that_a_model_works_on_tiles(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = models.make_spec(size=(128, 128), resize="tile", tile_margin=10, multiple_of=16)
    path = models.save_model(tmp_path / "m.onnx", spec)
    code, result = run("run", path, photos, "-o", tmp_path / "out")
    assert code == 0
    assert [entry["tiles"] for entry in result["outputs"]] == [4 * 7, 4 * 7]  # of 96 x 96 in 360 x 640
    main(["info", str(path)])
    assert "tile: step 96 x 96, margin 10, mirrored" in capsys.readouterr().out


def test_run_writes_the_masks_that_the_sdk_makes(run: Run, photos: Path, tmp_path: Path) -> None:
    from seginfer import Segmenter
    from seginfer._media.images import read_image

    code, result = run("run", MODEL, photos, "-o", tmp_path / "out")
    assert code == 0
    assert [Path(entry["input"]).stem for entry in result["outputs"]] == ["near", "robot"]
    with Segmenter.open(MODEL) as segmenter:
        for entry in result["outputs"]:
            expected = segmenter(read_image(entry["input"])).mask
            assert np.array_equal(read_picture(entry["mask"], cv2.IMREAD_UNCHANGED), expected)
            assert read_picture(entry["overlay"]).shape == (360, 640, 3)
            assert abs(sum(entry["class_areas"].values()) - 1) < 1e-4
    assert result["latency_ms"]["total"]["p50"] > 0


def test_the_shipped_model_sees_the_shipped_samples(run: Run, tmp_path: Path) -> None:
    """Against the simulator's own labels, not only against itself."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for picture in (SOCCER / "samples").glob("*.png"):
        if "_mask" not in picture.name:
            shutil.copyfile(picture, folder / picture.name)
    _, result = run("run", MODEL, folder, "-o", tmp_path / "out", "--no-overlay")
    assert len(result["outputs"]) == 3
    for entry in result["outputs"]:
        truth = read_picture(SOCCER / "samples" / f"{Path(entry['input']).stem}_mask.png", cv2.IMREAD_UNCHANGED)
        mask = read_picture(entry["mask"], cv2.IMREAD_UNCHANGED)
        assert np.mean(mask == truth) > 0.96
        assert "overlay" not in entry


def test_run_takes_a_video(run: Run, tmp_path: Path) -> None:
    code, result = run("run", MODEL, SOCCER / "clip.webm", "-o", tmp_path / "out")
    assert code == 0
    entry = result["outputs"][0]
    assert entry["frames"] == len(list(Path(entry["masks"]).glob("*.png"))) == 48
    overlay = list(VideoReader(entry["overlay"]))
    assert len(overlay) == 48
    assert overlay[0].shape == (360, 640, 3)


def test_a_cut_off_video_is_listed_and_frames_of_a_longer_run_do_not_stay(run: Run, tmp_path: Path) -> None:
    (tmp_path / "clip.webm").write_bytes((SOCCER / "clip.webm").read_bytes())
    assert run("run", MODEL, tmp_path / "clip.webm", "-o", tmp_path / "out")[0] == 0
    (tmp_path / "clip.webm").write_bytes((SOCCER / "clip.webm").read_bytes()[:100_000])
    code, result = run("run", MODEL, tmp_path / "clip.webm", "-o", tmp_path / "out")
    assert code == 1
    assert "breaks off after" in result["failed"][0]["error"]
    assert len(list((tmp_path / "out" / "clip.masks").glob("*.png"))) == result["frames"] < 48


def test_what_a_module_prints_does_not_mix_with_json(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noisy_nets.py").write_text(
        "import networks\nprint('imported')\ndef build():\n    print('built')\n    return networks.Tiny()\n"
        "def leave():\n    raise SystemExit(3)\n"
    )
    (tmp_path / "broken_nets.py").write_text("this is not Python\n")
    (tmp_path / "spec.json").write_text(make_spec().to_json())
    assert run("export", "noisy_nets:build", "--spec", "spec.json", "-o", "m.onnx")[0] == 0
    for source in ("noisy_nets:leave", "broken_nets:build"):
        assert run("export", source, "--spec", "spec.json", "-o", "n.onnx") == (2, ANY)
    assert not (tmp_path / "n.onnx").exists()


def test_names_inside_a_model_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    spec = json.loads((SOCCER / "spec.json").read_text())
    spec["classes"]["names"][4] = "\x1b]0;owned\x07\x1b[31m"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    run("attach", MODEL, tmp_path / "spec.json", "-o", tmp_path / "m.onnx")
    assert main(["info", str(tmp_path / "m.onnx")]) == 0
    assert main(["run", str(tmp_path / "m.onnx"), str(SOCCER / "clip.webm"), "-o", str(tmp_path / "out")]) == 0
    assert "\x1b]0" not in capsys.readouterr().out


def test_a_full_disk_and_a_long_name_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seginfer"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, "info", MODEL, "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    long = [*command, "run", MODEL, "x" * 300 + ".png", "-o", str(tmp_path)]
    done = subprocess.run(long, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    shutil.copyfile(SOCCER / "samples" / "near.png", tmp_path / f"{'n' * 235}.png")
    ok = [*command, "run", MODEL, str(tmp_path / f"{'n' * 235}.png"), "-o", str(tmp_path / "out")]
    assert subprocess.run(ok, capture_output=True).returncode == 0


def test_one_unreadable_picture_is_listed_and_the_others_are_done(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"not a picture")
    (photos / "empty.png").write_bytes(b"")
    (photos / "broken.mp4").write_bytes(b"not a video")
    (photos / "dangling.png").symlink_to(photos / "nowhere.png")
    code, result = run("run", MODEL, photos, "-o", tmp_path / "out")
    assert code == 1
    assert len(result["outputs"]) == 2
    assert sorted(Path(entry["input"]).name for entry in result["failed"]) == BROKEN
    assert not [path for path in (tmp_path / "out").rglob("*") if "broken" in path.name or ".part" in path.name]


def test_frames_to_compare_on_are_spread_over_the_whole_video() -> None:
    named = sample([SOCCER / "clip.webm"], 6, gray=False)
    frames = list(named.values())
    everything = list(VideoReader(SOCCER / "clip.webm"))
    found = [next(i for i, frame in enumerate(everything) if np.array_equal(frame, image)) for image in frames]
    assert found == [0, 9, 19, 28, 38, 47]
    assert list(named) == [f"clip.webm frame {i}" for i in found]
    gray = sample([SOCCER / "clip.webm", SOCCER / "samples"], 8, gray=True)
    assert {image.shape for image in gray.values()} == {(360, 640)}
    assert {"near.png", "near_mask.png"} <= set(gray)
    assert len(gray) == 8


PERSON = Path(__file__).parents[2] / "shared" / "models" / "person_mediapipe_256.onnx"


@pytest.mark.skipif(not PERSON.is_file(), reason="needs the third-party model, which is not part of the repository")
def test_a_model_that_somebody_else_made_runs_through_attach_and_run_alone(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["attach", "--help"])
    example = capsys.readouterr().out.partition("a minimal spec.json:")[2]
    (tmp_path / "spec.json").write_text(example)  # the spec that the help shows is the one this model needs
    assert run("info", PERSON)[1]["spec"] is None
    assert run("attach", PERSON, tmp_path / "spec.json", "-o", tmp_path / "person.onnx")[0] == 0
    code, result = run("run", tmp_path / "person.onnx", photos, "-o", tmp_path / "out")
    assert code == 0
    for entry in result["outputs"]:
        mask = read_picture(entry["mask"], cv2.IMREAD_UNCHANGED)
        assert mask.shape == (360, 640)
        assert set(np.unique(mask)) <= {0, 1}


def test_info_shows_spec_and_certificate(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run("info", MODEL)
    assert code == 0
    assert result["spec"]["classes"]["names"][4] == "ball"
    assert result["spec"]["provenance"]["certificate"]["decisive_agreement"] == 1.0
    assert result["certificate_matches"] is True
    assert main(["info", MODEL]) == 0
    text = capsys.readouterr().out
    assert "letterbox" in text
    assert "100.0000%" in text


def test_export_then_parity_then_run(run: Run, photos: Path, tmp_path: Path) -> None:
    save_file(Tiny().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "spec.json").write_text(make_spec(resize="letterbox").to_json())
    source = ("networks:Tiny", "--weights", tmp_path / "w.safetensors", "--kwargs", '{"channels": 3}')
    code, result = run(
        "export", *source, "--spec", tmp_path / "spec.json", "-o", tmp_path / "m.onnx", "--images", photos
    )
    assert code == 0
    assert result["certificate"]["images"] == 2
    assert read_model(tmp_path / "m.onnx").spec.provenance.source == "networks:Tiny"
    code, result = run(
        "parity", tmp_path / "m.onnx", *source, "--images", photos, SOCCER / "clip.webm", "--max-images", 6
    )
    assert code == 0
    assert 2 < result["certificate"]["images"] <= 6
    assert result["certificate"]["decisive_agreement"] == 1.0
    code, _ = run("run", tmp_path / "m.onnx", photos, "-o", tmp_path / "out")
    assert code == 0


def test_parity_with_other_weights_fails_with_exit_code_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(make_spec().to_json())
    run("export", "networks:Tiny", "--spec", tmp_path / "spec.json", "-o", tmp_path / "m.onnx")
    save_file({k: v * 1.1 for k, v in Tiny().state_dict().items()}, tmp_path / "w.safetensors")
    code, result = run("parity", tmp_path / "m.onnx", "networks:Tiny", "--weights", tmp_path / "w.safetensors")
    assert code == 1
    assert result["certificate"]["stage"] == "network"


def test_attach_puts_an_edited_spec_in(run: Run, tmp_path: Path) -> None:
    spec = json.loads((SOCCER / "spec.json").read_text())
    spec["classes"]["names"][4] = "football"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    code, _ = run("attach", MODEL, tmp_path / "spec.json", "-o", tmp_path / "m.onnx")
    assert code == 0
    assert read_model(tmp_path / "m.onnx").spec.classes.names[4] == "football"


def test_doctor_runs_a_real_inference(run: Run) -> None:
    code, result = run("doctor")
    assert code == 0
    assert " ms" in result["inference"]["found"]
    assert result["onnxruntime"]["found"]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["run", "missing.onnx", "{photos}"], "MissingFileError"),
        (["run", MODEL, "missing.png"], "MissingFileError"),
        (["run", MODEL, "{photos}", "--backend", "tensorrt"], "BackendUnavailableError"),
        (["run", MODEL, "{photos}", "--alpha", "3"], "InputError"),
        (["run", MODEL, "{photos}", "-o", "{photos}/near.png"], "OutputWriteError"),
        (["demo", "-o", "{photos}/near.png"], "OutputWriteError"),
        (["demo", "-o", "/proc/no/such"], "OutputWriteError"),
        (["info", __file__], "ModelFileError"),
        (["check", __file__], "ModelFileError"),
        (["check", "missing.onnx"], "MissingFileError"),
        (["attach", MODEL, "{photos}/near.png", "-o", "x.onnx"], "SpecError"),
        (["export", "no.such:thing", "--spec", SPEC, "-o", "x.onnx"], "ExportError"),
        (["export", "networks:Tiny", "--spec", "missing.json", "-o", "x.onnx"], "MissingFileError"),
        (["export", "networks:Tiny", "--spec", SPEC, "-o", "x.onnx"], "ExportError"),
        (
            [*["export", "networks:Tiny", "-o", "x.onnx", "--weights"], WEIGHTS, "--spec", SPEC],
            "WeightsError",
        ),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    arguments: list[str],
    kind: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(photos=photos) for argument in arguments]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("seginfer: ")
    assert captured.err.count("\n") == 1
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == kind
    assert not list(tmp_path.rglob("*.part*"))
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_only_finished_files(signal_: signal.Signals, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(12):
        shutil.copyfile(SOCCER / "clip.webm", videos / f"clip{i:02d}.webm")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "seginfer", "run", MODEL, str(videos), "-o", str(out)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    deadline = time.monotonic() + 60
    while not list(out.rglob("frame_*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal_)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    assert not list(out.rglob(".*.part*"))
    masks = list(out.rglob("*.png"))
    assert 0 < len(masks) < 12 * 48
    assert all(read_picture(mask, cv2.IMREAD_UNCHANGED).shape == (360, 640) for mask in masks)
