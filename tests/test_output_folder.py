"""Ring 4: abuse. Commands that write into folders leave alone whatever they did not write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import models
import numpy as np
import pytest
from refusal import refuses

from seginfer import OutputWriteError
from seginfer._cli import main
from seginfer._cli.output_folder import LIST_NAME, OutputFolder
from seginfer._media.video import video_writer

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.save_model(tmp_path / "m.onnx", models.SPECS["semantic"])


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Segment inputs; return exit code and the object that was printed."""

    def call(*arguments: object) -> tuple[int, Any]:
        code = main(["run", str(model), *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def write_picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((24, 32, 3), value, np.uint8))
    return path


def write_video(path: Path, frames: int) -> Path:
    with video_writer(path, (24, 32), Fraction(25)) as sink:
        for i in range(frames):
            sink.write(np.full((24, 32, 3), 20 * i, np.uint8))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the lists of outputs."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST_NAME)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def names(folder: Path) -> list[str]:
    return sorted(contents(folder))


def test_frames_that_lie_beside_their_video_stay(run: Run, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    for i in range(1, 21):
        write_picture(drive / f"frame_{i:06d}.png", i)
    before = contents(drive)
    write_video(tmp_path / "drive.webm", 5)
    assert run(tmp_path / "drive.webm", "-o", tmp_path)[0] == 0
    assert contents(drive) == before
    assert len(names(tmp_path / "drive.masks")) == 5


def test_ground_truth_of_the_same_name_stays(run: Run, tmp_path: Path) -> None:
    photo, truth = write_picture(tmp_path / "photo.jpg"), write_picture(tmp_path / "labels" / "photo.png", 1)
    before = truth.read_bytes()
    assert run(photo, "-o", truth.parent)[0] == 0
    assert truth.read_bytes() == before
    assert names(truth.parent) == ["photo.mask.png", "photo.overlay.jpg", "photo.png"]


@pytest.mark.parametrize("name", ["photo.mask.png", "photo.overlay.jpg", "clip.masks/frame_000002.png"])
def test_a_file_of_others_is_refused_and_replaced_when_asked(name: str, run: Run, tmp_path: Path) -> None:
    inputs = write_picture(tmp_path / "photo.jpg"), write_video(tmp_path / "clip.webm", 4)
    theirs = write_picture(tmp_path / "out" / name, 240)
    before = theirs.read_bytes()
    code, result = run(*inputs, "-o", tmp_path / "out")
    assert code == 1
    assert theirs.read_bytes() == before
    assert len(result["failed"]) == len(result["outputs"]) == 1
    for word in (str(theirs), "not as seginfer wrote it", "--overwrite"):
        assert word in result["failed"][0]["error"]
    assert run(*inputs, "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert theirs.read_bytes() != before


def test_the_same_command_again_replaces_its_own_files_and_no_others(run: Run, tmp_path: Path) -> None:
    photo, clip = write_picture(tmp_path / "photo.jpg"), write_video(tmp_path / "clip.webm", 6)
    out = tmp_path / "out"
    assert run(photo, clip, "-o", out)[0] == 0
    first = contents(out)
    listed = (out / LIST_NAME).read_bytes()
    assert run(photo, clip, "-o", out)[0] == 0
    assert contents(out) == first
    assert (out / LIST_NAME).read_bytes() == listed, "the list does not grow"
    theirs = write_picture(out / "clip.masks" / "frame_000009.png")
    edited = write_picture(out / "clip.masks" / "frame_000004.png", 7)
    write_video(clip, 3)
    assert run(photo, clip, "-o", out)[0] == 0
    assert names(out / "clip.masks") == [*(f"frame_00000{i}.png" for i in range(3)), edited.name, theirs.name]


def test_a_mask_that_was_corrected_by_hand_stays(run: Run, tmp_path: Path) -> None:
    photo = write_picture(tmp_path / "photo.jpg")
    run(photo, "-o", tmp_path / "out")
    corrected = write_picture(tmp_path / "out" / "photo.mask.png", 2)
    before = corrected.read_bytes()
    assert run(photo, "-o", tmp_path / "out")[0] == 1
    assert corrected.read_bytes() == before


def test_outputs_are_no_inputs_of_the_next_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "photos" / "a.jpg")
    write_picture(tmp_path / "photos" / "below" / "b.jpg")
    monkeypatch.chdir(tmp_path / "photos")
    for folder in (".", "seginfer-masks", "."):
        code, result = run(".", "-o", folder)
        assert code == 0
        assert [entry["input"] for entry in result["outputs"]] == ["a.jpg", "below/b.jpg"]


@pytest.mark.parametrize("arguments", [[], ["--overwrite"]])
def test_an_input_is_never_replaced(arguments: list[str], run: Run, tmp_path: Path) -> None:
    photo, same = write_picture(tmp_path / "a.jpg"), write_picture(tmp_path / "a.mask.png", 3)
    before = same.read_bytes()
    assert run(photo, same, "-o", tmp_path, *arguments)[0] == 1
    assert same.read_bytes() == before


@pytest.mark.parametrize("planted", ["photo.mask.png", "clip.masks", LIST_NAME])
@pytest.mark.parametrize("arguments", [[], ["--overwrite"]])
def test_planted_links_are_not_followed(planted: str, arguments: list[str], run: Run, tmp_path: Path) -> None:
    inputs = write_picture(tmp_path / "photo.jpg"), write_video(tmp_path / "clip.webm", 2)
    victim, out = tmp_path / "victim", tmp_path / "out"
    out.mkdir()
    if planted == "clip.masks":
        write_picture(victim / "frame_000000.png")
    else:
        victim.write_bytes(b"important")
    before = contents(victim) or victim.read_bytes()
    (out / planted).symlink_to(victim)
    code, result = run(*inputs, "-o", out, *arguments)
    assert code == 1
    assert (contents(victim) or victim.read_bytes()) == before
    assert str(out / planted) in result["failed"][0]["error"]


def test_a_planted_list_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim.png", tmp_path / "out"
    victim.write_bytes(b"")
    out.mkdir()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    lines = [{"path": "../victim.png", "sha256": empty}, {"path": str(victim), "sha256": empty}, {"path": [1]}, 7, {}]
    (out / LIST_NAME).write_text("\n".join(["{", *map(json.dumps, lines), "[" * 100_000]))
    OutputFolder(out).retain(())
    assert victim.exists()


def test_the_tree_of_a_folder_is_mirrored_and_names_that_differ_in_their_suffix_stay_apart(
    run: Run, tmp_path: Path
) -> None:
    for name in ("top.jpg", "seq1/a.jpg", "seq1/a.png", "seq2/deep/a.jpg", ".hidden/a.jpg"):
        write_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "seq2" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("")
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--no-overlay")[0] == 0
    expected = ["seq1/a.jpg.mask.png", "seq1/a.png.mask.png", "seq2/deep/a.mask.png", "top.mask.png"]
    assert names(tmp_path / "out") == expected
    (tmp_path / "in" / "seq2" / "loop").unlink()
    assert run(tmp_path / "in/seq1", tmp_path / "in/seq2", "-o", tmp_path / "two", "--no-overlay")[0] == 0
    assert names(tmp_path / "two") == expected[:3]


def test_leftovers_of_a_killed_process_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".12-0a1b2c3d.part.png", ".13-0a1b2c3d.part", ".12-x.part.png"))
    for path in (old, young, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (0, 0))
    OutputFolder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, other])


def test_a_failed_write_leaves_neither_a_file_nor_an_entry(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    with refuses(OutputWriteError, "a.png"), folder.file("a.png") as part:
        raise OutputWriteError(f"cannot write {part}: full; free some space")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_name_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = write_picture(tmp_path / "photo.jpg")
    for arguments in ([str(photo), "-o", ""], [""]):
        with pytest.raises(SystemExit) as exit_:
            main(["run", str(model), *arguments])
        assert exit_.value.code == 2
        assert "must not be empty; use ." in capsys.readouterr().err


def test_the_demo_keeps_files_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "pitch.onnx"
    report.write_bytes(b"theirs")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert names(tmp_path) == ["pitch.onnx"]
    assert report.read_bytes() == b"theirs"


def test_a_result_of_the_same_call_is_not_deleted_with_older_ones(run: Run, tmp_path: Path) -> None:
    """A folder of pictures may be called as the folder of a video's masks."""
    write_picture(tmp_path / "a.masks" / "x.png")
    write_picture(tmp_path / "b" / "y.png")
    write_video(tmp_path / "a.webm", 2)
    code, _ = run(tmp_path / "a.masks", tmp_path / "b", tmp_path / "a.webm", "-o", tmp_path / "out")
    assert code == 0
    assert {"x.mask.png", "frame_000000.png", "frame_000001.png"} <= set(names(tmp_path / "out" / "a.masks"))


def test_a_damaged_list_is_skipped(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LIST_NAME).write_bytes(bytes(range(256)) * 3)
    assert run(write_picture(tmp_path / "a.png"), "-o", folder)[0] == 0
    assert (folder / "a.mask.png").is_file()


def test_a_file_that_is_named_twice_is_done_once(run: Run, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "a.png")
    code, data = run(picture, tmp_path / "in", picture, "-o", tmp_path / "out")
    assert (code, len(data["outputs"])) == (0, 1)


def test_a_picture_with_the_name_of_an_output_is_an_input(run: Run, tmp_path: Path) -> None:
    write_picture(tmp_path / "p" / "a.png")
    assert run(tmp_path / "p", "-o", tmp_path / "p")[0] == 0
    write_picture(tmp_path / "p" / "a.mask.png", 7)  # another picture takes the name
    _, result = run(tmp_path / "p", "-o", tmp_path / "out")
    assert {Path(entry["input"]).name for entry in result["outputs"]} == {"a.png", "a.mask.png"}


def test_files_of_a_run_that_goes_on_meanwhile_are_known(tmp_path: Path) -> None:
    ours, theirs = OutputFolder(tmp_path), OutputFolder(tmp_path)
    theirs.write("a.png", b"theirs")
    ours.write("a.png", b"ours")
    assert (tmp_path / "a.png").read_bytes() == b"ours"


def test_a_folder_of_outputs_alone_is_named(
    model: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(write_picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert main(["run", str(model), str(tmp_path / "out"), "-o", str(tmp_path / "again")]) == 2
    assert "but those that seginfer wrote" in capsys.readouterr().err
