"""`seginfer cache`, and what `seginfer doctor` says of cache and GPU; what is not ours is never deleted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_driver
import fake_nvrtc
import pytest
from engine_cases import edit_sidecar, flip_byte, needs_rtx
from models import SPECS, save_model

from seginfer._cli import cache as cache_cli
from seginfer._cli import main
from seginfer._spec.schema import unstructure
from seginfer._tensorrt.cache import entry_lock, lock_path, timing_path
from seginfer._tensorrt.engine_file import EngineFile, sidecar_path
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.entries import cache_size
from seginfer._tensorrt.key import EngineGpu
from seginfer._tensorrt.options import EngineOptions

pytestmark = needs_rtx

ORIN = EngineGpu("Orin", (8, 7), "12.6 (540.4.0)", 16)

Run = Callable[..., tuple[int, Any]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json; return exit code and the object it printed."""

    def call(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EngineFile]:
    """A cache that every test gets a copy of, with an engine that can be used here, and three that cannot."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGINFER_CACHE", str(folder / "cache"))
        engines = {
            name: build_engine(save_model(folder / f"{name}.onnx", spec))
            for name, spec in zip(("usable", "older", "damaged", "orphan"), SPECS.values(), strict=False)
        }
    edit_sidecar(
        engines["older"].path,
        lambda document: document["content"]["key"].update(library_version="1.6.0.1"),
        seal=True,
    )
    flip_byte(engines["damaged"].path, 1000)
    sidecar_path(engines["orphan"].path).unlink()
    return engines


@pytest.fixture
def engines(built: dict[str, EngineFile], cache: Path) -> dict[str, EngineFile]:
    shutil.copytree(built["usable"].path.parent, cache)
    return {name: replace(engine, path=cache / engine.path.name) for name, engine in built.items()}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_empty_cache_is_listed_and_cleared(run: Run, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cache", "list") == (0, {"folder": str(cache), "entries": []})
    code, result = run("cache", "clear")
    assert (code, result["engines"], result["freed_bytes"]) == (0, 0, 0)
    assert not cache.exists()
    assert main(["cache", "list"]) == 0
    assert f"no engines in {cache}" in " ".join(capsys.readouterr().out.split())


def test_the_list_says_what_each_engine_is_and_whether_it_can_be_used(run: Run, engines: dict[str, EngineFile]) -> None:
    code, result = run("cache", "list")
    assert code == 0
    entries = {Path(entry["path"]).name.rpartition("-")[0]: entry for entry in result["entries"]}
    assert {name: entry["state"] for name, entry in entries.items()} == {
        "usable": "usable",
        "older": "stale",
        "damaged": "broken",
        "orphan": "broken",
    }
    assert "TensorRT for RTX version 1.6.0.1, here" in entries["older"]["reason"]
    assert "sha256" in entries["damaged"]["reason"]
    assert "no sidecar" in entries["orphan"]["reason"]
    usable = entries["usable"]
    assert usable["reason"] == ""
    assert usable["model"] == "usable.onnx"
    assert usable["built"] == engines["usable"].built
    assert usable["report"]["profiles"][0]["max"] == list(engines["usable"].report.profiles[0].max)
    path = engines["usable"].path
    assert usable["size_bytes"] == path.stat().st_size + sidecar_path(path).stat().st_size


def test_the_table_is_for_people(engines: dict[str, EngineFile], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in (
        "usable.onnx",
        f"{engines['older'].path.name} is stale: built for TensorRT for RTX version 1.6.0.1, here",
        f"{engines['orphan'].path.name} is broken:",
        "4 engines, ",
        "; 1 usable here",
        "`seginfer cache clear --stale`",
    ):
        assert word in text


def test_clear_stale_keeps_what_can_be_used(
    run: Run, built: dict[str, EngineFile], engines: dict[str, EngineFile], cache: Path
) -> None:
    mine = timing_path(cache, engines["usable"].key)
    other = cache / "timing-tensorrt_rtx-1.6.0.1-none.cache"
    of_what_is_not_here = {
        cache / "timing-tensorrt-10.3.0-Orin.cache",
        timing_path(cache, replace(engines["usable"].key, gpu=ORIN)),
    }
    for path in (mine, other, *of_what_is_not_here):
        path.write_bytes(bytes(100))
    left = cache / ".123-4.part.engine"
    left.write_bytes(bytes(50))
    before = _bytes(cache)
    code, result = run("cache", "clear", "--stale")
    assert (code, result["engines"], result["building"]) == (0, 3, [])
    assert result["freed_bytes"] == before - _bytes(cache) > 0
    path = engines["usable"].path
    assert set(cache.iterdir()) == {path, sidecar_path(path), mine, *of_what_is_not_here}
    assert run("cache", "clear", "--stale")[1]["files"] == 0
    assert build_engine(built["usable"].path.parent.parent / "usable.onnx") == engines["usable"]


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"library": "TensorRT", "library_version": "10.3.0", "options": EngineOptions("tensorrt")}, "unknown"),
        ({}, "unknown"),
        ({"library_version": "1.6.0.1"}, "stale"),
        ({"onnx_sha256": "0" * 64}, "unknown"),
        ({"seginfer": "0.0.1"}, "stale"),
    ],
)
def test_an_engine_whose_gpu_or_library_cannot_be_found_is_not_called_stale(
    fields: dict[str, Any], state: str, run: Run, engines: dict[str, EngineFile], cache: Path
) -> None:
    """A driver that is being updated is back in a minute, and engines take hours."""
    path = engines["usable"].path
    key = replace(engines["usable"].key, gpu=ORIN, **fields)
    edit_sidecar(path, lambda document: document["content"].update(key=unstructure(key)), seal=True)
    (entry,) = [entry for entry in run("cache", "list")[1]["entries"] if entry["path"] == str(path)]
    assert entry["state"] == state
    assert ("GPU" in entry["reason"]) == (state == "unknown")
    assert run("cache", "clear", "--stale")[0] == 0
    assert path.exists() == sidecar_path(path).exists() == (state == "unknown")
    assert run("cache", "clear")[0] == 0
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
@pytest.mark.parametrize("arguments", [("list",), ("clear",), ("clear", "--stale")])
def test_a_cache_that_is_no_folder_is_an_error(
    arguments: tuple[str, ...], place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / place))
    code, result = run("cache", *arguments)
    assert (code, result["kind"]) == (2, "OutputWriteError")
    for word in (str(tmp_path / place), "Not a directory", "SEGINFER_CACHE"):
        assert word in result["error"]
    assert (tmp_path / "file").read_text() == "mine"
    assert "SEGINFER_CACHE" in run("doctor")[1]["engine cache"]["remedy"]


def test_a_file_system_that_refuses_where_nobody_foresaw_it_is_json_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(cache_cli, "list_entries", refuse)
    code, result = run("cache", "list")
    assert (code, result["kind"]) == (2, "OutputWriteError")
    assert "Permission denied: '/somewhere'; check the path" in result["error"]
    assert main(["cache", "list"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_engines_that_are_cleared_while_they_are_counted_are_no_error(
    run: Run, engines: dict[str, EngineFile], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.stat

    def look_and_clear(path: Path, **settings: bool) -> os.stat_result:
        found = real(path, **settings)
        if path.parent == cache:
            path.unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", look_and_clear)
        count, size = cache_size(cache)
    assert count == len(engines)
    assert size > 4 * 266_000
    assert run("cache", "list")[1]["entries"] == []


@pytest.mark.usefixtures("engines")
def test_clear_deletes_all_that_is_ours_and_nothing_else(run: Run, cache: Path) -> None:
    foreign = ["notes.txt", "my.engine", "my.engine.json", "timing.cache", "model-0123.engine.lock", "kernels/readme"]
    ours = ["timing-tensorrt-10.3.0-Orin.cache", "kernels/sm_87-0-0.cubin", ".1-2.part.engine", ".1-3.part.json"]
    (cache / "kernels").mkdir()
    for name in foreign + ours:
        (cache / name).write_bytes(bytes(10))
    (cache / "a-0123456789abcdef.engine.d").mkdir()
    before = _bytes(cache)
    code, result = run("cache", "clear")
    assert (code, result["engines"]) == (0, 4)
    assert result["freed_bytes"] == before - _bytes(cache)
    found = {str(path.relative_to(cache)) for path in cache.rglob("*")}
    assert found == {*foreign, "kernels", "a-0123456789abcdef.engine.d"}


@pytest.mark.parametrize("arguments", [(), ("--stale",)])
def test_what_is_being_built_is_left_and_named(
    arguments: tuple[str, ...],
    run: Run,
    engines: dict[str, EngineFile],
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    busy = engines["damaged"].path
    part = cache / ".1-2.part.engine"
    part.touch()
    with entry_lock(busy, "busy"):
        entries = run("cache", "list")[1]["entries"]
        assert [entry["path"] for entry in entries if entry["state"] == "building"] == [str(busy)]
        code, result = run("cache", "clear", *arguments)
        assert code == 1
        assert result["building"] == [str(busy)]
        assert {busy, sidecar_path(busy), lock_path(busy), part} <= set(cache.iterdir())
        assert main(["cache", "clear", *arguments]) == 1
        assert f"left {busy.name}: a process is building it" in " ".join(capsys.readouterr().out.split())
    assert run("cache", "clear", *arguments)[0] == 0
    assert not busy.exists()
    assert not part.exists()


def test_a_first_build_is_listed_before_it_has_an_engine(run: Run, cache: Path) -> None:
    entry = cache / "new-0123456789abcdef.engine"
    with entry_lock(entry, "new"):
        (found,) = run("cache", "list")[1]["entries"]
        assert (found["path"], found["state"], found["size_bytes"]) == (str(entry), "building", 0)
    assert run("cache", "list")[1]["entries"] == []


def test_a_folder_that_refuses_is_one_error(engines: dict[str, EngineFile], run: Run) -> None:
    """A folder of that name cannot be deleted as a file, not even by a superuser."""
    path = engines["usable"].path
    path.unlink()
    path.mkdir()
    code, result = run("cache", "clear")
    assert code == 2
    assert result["kind"] == "OutputWriteError"
    assert str(path) in result["error"]


def test_where_there_is_a_gpu_an_engine_without_one_is_stale(semantic_model: Path, tmp_path: Path) -> None:
    engine = build_engine(semantic_model)
    folder = tmp_path / "driver"
    folder.mkdir()
    code = "import sys; from seginfer._cli import main; sys.exit(main(['cache', 'list', '--json']))"
    (entry,) = json.loads(fake_driver.run(fake_driver.install(folder), code))["entries"]
    assert (entry["path"], entry["state"]) == (str(engine.path), "stale")
    assert "GPU none, here First GPU" in entry["reason"]


def test_help_names_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["cache"], ["cache", "list"], ["cache", "clear"]):
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--help"])
        assert exit_.value.code == 0
        text = capsys.readouterr().out
        assert "examples:\n  seginfer cache" in text
        assert "$SEGINFER_CACHE" in text


@pytest.mark.usefixtures("engines")
def test_doctor_counts_engines_and_says_why_there_is_no_gpu(run: Run, cache: Path) -> None:
    _, result = run("doctor")
    assert result["engine cache"]["found"].startswith("4 engines, 1.")
    assert result["engine cache"]["found"].endswith(f"in {cache}")
    assert result["gpu"]["found"] == ""
    assert "driver is not installed" in result["gpu"]["remedy"]
    assert "without one" in result["gpu"]["remedy"]


def test_doctor_names_the_gpu_and_its_driver(tmp_path: Path) -> None:
    code = "from seginfer._cli import main; main(['doctor', '--json'])"
    result = json.loads(fake_driver.run(fake_driver.install(tmp_path), code))
    assert result["gpu"]["found"].startswith("First GPU (8.6, 8.6 GB), driver ")
    assert "CUDA 13.0" in result["gpu"]["found"]


def test_doctor_names_what_pixel_steps_on_a_gpu_need(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, result = run("doctor")
    for name in ("cuda-core", "cuda-bindings", "nvrtc"):
        assert result[name]["found"], result[name]["remedy"]
    for module in ("cuda.core", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, module, None)
    with fake_nvrtc.installed(tmp_path):
        _, result = run("doctor")
    for name in ("cuda-core", "cuda-bindings", "nvrtc"):
        assert result[name]["found"] == ""
        assert "pip install 'seginfer[cuda" in result[name]["remedy"]
    assert "sys.modules" in result["cuda-core"]["remedy"]


def test_doctor_says_why_there_is_no_tensorrt_and_what_it_is_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    _, result = run("doctor")
    assert result["tensorrt"]["found"] == ""
    for word in ("`seginfer check`", "`seginfer build`", "import of tensorrt_rtx_bindings halted", "seginfer[check]"):
        assert word in result["tensorrt"]["remedy"]


def test_copies_of_engines_under_other_names_are_not_ours(
    run: Run, engines: dict[str, EngineFile], cache: Path
) -> None:
    copy = cache / "deployed.engine"
    shutil.copyfile(engines["usable"].path, copy)
    shutil.copyfile(sidecar_path(engines["usable"].path), sidecar_path(copy))
    assert len(run("cache", "list")[1]["entries"]) == 4
    run("cache", "clear")
    assert set(cache.iterdir()) == {copy, sidecar_path(copy)}
