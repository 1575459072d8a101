"""The cache holds code: nobody else may write it, and nothing that was planted there is followed, run or waited for."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from engine_cases import needs_rtx

from seginfer import OutputWriteError, SegInferError
from seginfer._cuda import compiler
from seginfer._system.environment import cache_folder, foreign_problem
from seginfer._tensorrt import cache as cache_module
from seginfer._tensorrt.cache import entry_lock, lock_path, try_entry_lock
from seginfer._tensorrt.engine_file import read_engine, sidecar_path
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.entries import list_entries

pytestmark = needs_rtx
NOBODY = 65534


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def give_away(path: Path) -> None:
    """Make a file or folder one that another user can write."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        path.chmod(path.stat().st_mode | stat.S_IWOTH)


def test_what_is_written_is_the_users_alone(semantic_model: Path, cache: Path) -> None:
    before = os.umask(0)
    try:
        engine = build_engine(semantic_model).path
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for path in (engine, sidecar_path(engine), lock_path(engine)):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_cache_that_others_may_write_is_not_used(mode: int, semantic_model: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(OutputWriteError, match=r"chmod go-w"):
        build_engine(semantic_model)
    assert not list(cache.iterdir())
    assert compiler._folders("mask") == [(compiler.SHIPPED, compiler.ALL)]
    cache.chmod(0o755)
    assert cache_folder() == cache


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_cache_of_another_user_is_not_used(semantic_model: Path, cache: Path) -> None:
    cache.mkdir()
    give_away(cache)
    with pytest.raises(OutputWriteError, match=f"belongs to user {NOBODY}"):
        build_engine(semantic_model)


def test_an_engine_of_another_user_is_not_run(semantic_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sidecar is forged too, so that every hash is right."""
    caplog.set_level("INFO", logger="seginfer")
    engine = build_engine(semantic_model)
    genuine, evil = engine.path.read_bytes(), b"EVIL" * 5000
    sidecar = sidecar_path(engine.path)
    document = json.loads(sidecar.read_text())
    document["content"]["engine_bytes"] = len(evil)
    document["content"]["engine_sha256"] = hashlib.sha256(evil).hexdigest()
    content = json.dumps(document["content"], sort_keys=True).encode()
    document["content_sha256"] = hashlib.sha256(content).hexdigest()
    for path, forged in ((engine.path, evil), (sidecar, json.dumps(document).encode())):
        path.write_bytes(forged)
    assert read_engine(engine.path).engine_bytes == len(evil)
    for path in (engine.path, sidecar):
        give_away(path)
    assert foreign_problem(sidecar)
    (entry,) = list_entries(engine.path.parent)
    assert entry.state == "broken"
    assert build_engine(semantic_model).path.read_bytes() != evil
    assert len(genuine) == engine.engine_bytes
    assert any(str(NOBODY) in message or "others may write" in message for message in caplog.messages)


def test_links_in_the_cache_are_not_followed(semantic_model: Path, tmp_path: Path) -> None:
    engine, victim = build_engine(semantic_model).path, tmp_path / "victim"
    victim.write_text("precious")
    for path in (engine, sidecar_path(engine)):
        path.unlink()
        path.symlink_to(victim)
        assert read_engine(build_engine(semantic_model).path)
        assert not path.is_symlink()
    for target in (victim, tmp_path / "created"):
        lock_path(engine).unlink()
        lock_path(engine).symlink_to(target)
        with pytest.raises(OutputWriteError, match="cannot lock"):
            build_engine(semantic_model, rebuild=True)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "created").exists()


def test_pipes_in_the_cache_are_not_waited_for(semantic_model: Path, cache: Path) -> None:
    engine = build_engine(semantic_model).path
    lock_path(engine).unlink()
    os.mkfifo(lock_path(engine))
    watch = threading.Timer(60, os._exit, (9,))
    watch.start()
    assert len(list_entries(cache)) == 1
    engine.unlink()
    os.mkfifo(engine)
    list_entries(cache)
    try:
        build_engine(semantic_model)
    except SegInferError:
        pass
    finally:
        watch.cancel()


def test_a_lock_names_its_owner_and_is_not_waited_for_without_end(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "_LONGEST_WAIT", 0.3)
    entry = cache / "m-0123456789abcdef.engine"
    with (
        entry_lock(entry, "m"),
        pytest.raises(OutputWriteError, match=f"by process {os.getpid()} on"),
        entry_lock(entry, "m"),
    ):
        pass
    assert f"process {os.getpid()} on" in caplog.text
    with try_entry_lock(entry) as is_free:
        assert is_free
