"""The engine cache: what is in it is used, what is not whole is built again, and no number of processes breaks it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_cases import edit_sidecar, flip_byte, names, needs_rtx, run_python
from models import SPECS, save_model

from seginfer._tensorrt import engine_file
from seginfer._tensorrt.cache import entry_lock, entry_path, lock_path, try_entry_lock
from seginfer._tensorrt.engine_file import EngineFile, read_engine, sidecar_path
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.entries import clear
from seginfer._tensorrt.key import engine_key
from seginfer._tensorrt.options import EngineOptions, EngineProfile

pytestmark = needs_rtx

BUILDING = "building an engine"
WAITING = "another process builds"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    caplog.set_level("INFO", logger="seginfer")
    return tmp_path / "cache"


def _said(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


def test_an_engine_is_built_once(semantic_model: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = build_engine(semantic_model)
    steps: list[object] = []
    second = build_engine(semantic_model, on_progress=steps.append)
    assert second == first == read_engine(first.path)
    assert steps == []
    assert len(_said(caplog, BUILDING)) == 1
    name = first.path.name
    assert names(cache) == {name, f"{name}.json", f"{name}.lock"}
    assert first.path.parent == cache


def test_whatever_changes_an_engine_makes_another_entry_and_the_log_says_what(
    semantic_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = {build_engine(semantic_model).path}
    assert "the cache has none of this model" in caplog.messages[0]
    paths.add(build_engine(semantic_model, options=EngineOptions(profiles=(EngineProfile((1, 1, 4)),))).path)
    assert "options.profiles[0] batch 1, here batch 1..1..4" in _said(caplog, BUILDING)[1]
    save_model(semantic_model, SPECS["binary"])
    paths.add(build_engine(semantic_model).path)
    assert "onnx_sha256" in _said(caplog, BUILDING)[2]
    assert len(paths) == 3
    assert all(path.is_file() for path in paths)


def test_a_new_build_is_made_when_asked(semantic_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = build_engine(semantic_model)
    inode = first.path.stat().st_ino
    second = build_engine(semantic_model, rebuild=True)
    assert second.path == first.path
    assert second.path.stat().st_ino != inode
    assert len(_said(caplog, BUILDING)) == 2


def test_progress_is_told(semantic_model: Path) -> None:
    steps: list[object] = []
    build_engine(semantic_model, on_progress=steps.append)
    assert steps


def _swap_engine(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n")


def _swap_entry(path: Path) -> None:
    """Put an engine of another key, whole and with its sidecar, under this name."""
    other = save_model(path.parent.parent / "other.onnx", SPECS["binary"])
    engine = build_engine(other, path.parent.parent / "other.engine")
    shutil.copyfile(engine.path, path)
    shutil.copyfile(sidecar_path(engine.path), sidecar_path(path))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda path: os.truncate(path, 1000), "got 1000", id="truncated"),
        pytest.param(lambda path: flip_byte(path, 5000), "sha256", id="flipped bit"),
        pytest.param(_swap_engine, "got 6", id="foreign"),
        pytest.param(_swap_entry, "another key", id="an engine of another model"),
        pytest.param(lambda path: sidecar_path(path).unlink(), "no sidecar", id="sidecar missing"),
        pytest.param(lambda path: os.truncate(sidecar_path(path), 50), "not valid JSON", id="sidecar truncated"),
        pytest.param(
            lambda path: edit_sidecar(path, lambda document: document.update(schema=99), seal=False),
            "newer seginfer",
            id="sidecar of a newer schema",
        ),
    ],
)
def test_an_entry_that_is_not_whole_is_built_again_and_the_log_says_why(
    damage: Callable[[Path], object], reason: str, semantic_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build_engine(semantic_model)
    damage(first.path)
    caplog.clear()
    second = build_engine(semantic_model)
    assert (second.path, second.key) == (first.path, first.key)
    assert read_engine(second.path) == second
    (said,) = _said(caplog, BUILDING)
    assert reason in said


@pytest.mark.parametrize("moment", ["read_sidecar", "file_stamp"])
def test_an_engine_that_is_cleared_while_it_is_looked_up_is_built(
    moment: str, semantic_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_engine(semantic_model)
    real = getattr(engine_file, moment)

    def then_clear(path: str | Path) -> object:
        found = real(path)
        if len(names(cache)) == 3:
            clear(cache)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(engine_file, moment, then_clear)
        second = build_engine(semantic_model)
    assert (second.path, second.key) == (first.path, first.key)
    assert read_engine(second.path) == second


def test_an_engine_that_is_missing_beside_its_sidecar_is_built(semantic_model: Path) -> None:
    first = build_engine(semantic_model)
    first.path.unlink()
    assert read_engine(build_engine(semantic_model).path)


def test_processes_that_build_at_once_build_once(semantic_model: Path, cache: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"""
print("ready", flush=True)
while not os.path.exists({str(go)!r}):
    time.sleep(0.002)
print(build_engine({str(semantic_model)!r}, on_progress=lambda step: time.sleep(0.1)).engine_sha256)
"""
    processes = [run_python(code) for _ in range(3)]
    assert [process.stdout and process.stdout.readline() for process in processes] == ["ready\n"] * 3
    go.touch()
    said = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    lines = [line for own in said for line in own]
    assert sum(BUILDING in line for line in lines) == 1
    assert sum(WAITING in line for line in lines) == 2
    entry = read_engine(next(cache.glob("*.engine")))
    assert {own[-1] for own in said} == {entry.engine_sha256}


def test_threads_that_build_at_once_build_once(semantic_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    engines: list[EngineFile] = []
    threads = [threading.Thread(target=lambda: engines.append(build_engine(semantic_model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 3
    assert engines[0] == engines[1] == engines[2]
    assert len(_said(caplog, BUILDING)) == 1


def test_a_build_that_is_killed_leaves_a_cache_that_works(
    semantic_model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"""
def stay(_):
    print("halfway", flush=True)
    time.sleep(600)
build_engine({str(semantic_model)!r}, on_progress=stay)
"""
    process = run_python(code)
    assert process.stdout is not None
    while process.stdout.readline() != "halfway\n":
        assert process.poll() is None
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    entry = next(cache.glob("*.lock")).with_suffix("")
    with try_entry_lock(entry) as is_free:
        assert not is_free
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    _wait_for_end(workers)
    left = names(cache) - {lock_path(entry).name}
    assert left
    assert not entry.exists()
    engine = build_engine(semantic_model)
    assert read_engine(entry) == engine
    assert names(cache) == {entry.name, sidecar_path(entry).name, lock_path(entry).name}
    assert len(_said(caplog, "left by a build that was killed")) == len(left)
    assert not _said(caplog, WAITING)


def _wait_for_end(pids: list[str]) -> None:
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_files_of_a_build_that_goes_on_are_not_taken_for_leftovers(semantic_model: Path, cache: Path) -> None:
    cache.mkdir()
    part = cache / ".12345-0.part.engine"
    part.touch()
    other = entry_path(
        cache, Path("other.onnx"), engine_key(semantic_model, EngineOptions("tensorrt_rtx", workspace_mb=1))
    )
    with entry_lock(other, "other"):
        build_engine(semantic_model)
        assert part.exists()
    build_engine(semantic_model, rebuild=True)
    assert not part.exists()


def test_a_lock_that_is_deleted_while_somebody_waits_for_it_still_locks(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = cache / "m-0123456789abcdef.engine"
    held, done = threading.Event(), threading.Event()

    def wait() -> None:
        with entry_lock(entry, "m"):
            held.set()
            done.wait(30)

    waiter = threading.Thread(target=wait)
    with entry_lock(entry, "m"):
        waiter.start()
        while not _said(caplog, WAITING):
            time.sleep(0.01)
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        lock_path(entry).unlink()
    assert held.wait(30)
    with try_entry_lock(entry) as is_free:
        assert not is_free
    done.set()
    waiter.join()
    with try_entry_lock(entry) as is_free:
        assert is_free


def test_a_lock_ends_with_its_holder_though_a_fork_of_it_lives(cache: Path) -> None:
    code = f"""
from pathlib import Path
from seginfer._tensorrt.cache import entry_lock, try_entry_lock
entry = Path({str(cache)!r}) / "m-0123456789abcdef.engine"
with entry_lock(entry, "m"):
    child = os.fork()
    if child == 0:
        time.sleep(600)
with try_entry_lock(entry) as is_free:
    print(is_free)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    assert run_python(code).communicate(timeout=60)[0] == "True\n"


def test_what_the_sidecar_says_is_what_was_built(semantic_model: Path) -> None:
    engine = build_engine(semantic_model)
    content = json.loads(sidecar_path(engine.path).read_text())["content"]
    assert content["key"]["onnx_sha256"] == engine.key.onnx_sha256
    assert content["key"]["options"]["library"] == "tensorrt_rtx"
    assert content["report"]["precisions"] == {"float32": 1}
    assert content["spec"] == json.loads(SPECS["semantic"].to_json())
