"""The folder of the engine cache: where it lies, and what a file system that refuses makes of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engine_cases import names, needs_rtx, run_python
from models import SPECS, save_model

from seginfer import OutputWriteError
from seginfer._system.environment import cache_folder
from seginfer._tensorrt.cache import ENGINE_NAME, entry_path, lock_path
from seginfer._tensorrt.engine_file import read_engine
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.key import engine_key
from seginfer._tensorrt.options import EngineOptions

pytestmark = needs_rtx


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Give up the right of a superuser to write anywhere."""
    user = os.geteuid()
    if user:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody can read, with a cache that nobody may write into once it is made read-only."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("SEGINFER_CACHE", str(folder / "cache"))
    yield folder
    (folder / "cache").chmod(0o755)
    shutil.rmtree(folder)


def test_a_cache_that_cannot_be_written_still_serves(readable: Path) -> None:
    model = save_model(readable / "m.onnx", SPECS["semantic"])
    first = build_engine(model)
    lock_path(first.path).chmod(0o444)
    (readable / "cache").chmod(0o555)
    with _as_nobody():
        assert build_engine(model) == first
        with pytest.raises(OutputWriteError, match=r"SEGINFER_CACHE .*`seginfer build m\.onnx -o m\.engine`"):
            build_engine(model, options=EngineOptions(workspace_mb=64))
        with pytest.raises(OutputWriteError, match="SEGINFER_CACHE"):
            build_engine(model, rebuild=True)
    assert read_engine(first.path) == first


@pytest.mark.parametrize("place", ["/proc/no", "{tmp}/file", "{tmp}/file/below"])
def test_a_place_that_can_be_no_cache_names_the_remedies(
    place: str, semantic_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SEGINFER_CACHE", place.format(tmp=tmp_path))
    steps: list[object] = []
    with pytest.raises(OutputWriteError, match=r"SEGINFER_CACHE .*`seginfer build model\.onnx -o") as caught:
        build_engine(semantic_model, on_progress=steps.append)
    assert "\n" not in str(caught.value)
    assert steps == []
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("limit", [0, 2000, 100_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(limit: int, semantic_model: Path, cache: Path) -> None:
    """A limit on the size of files stops writes where a full disk does: in the engine, whose size is 266 kB."""
    code = f"""
import resource
from seginfer import OutputWriteError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    build_engine({str(semantic_model)!r})
except OutputWriteError as error:
    print(error)
"""
    said = run_python(code).communicate(timeout=120)[0].splitlines()[-1]
    assert "cannot write" in said
    assert "SEGINFER_CACHE" in said
    assert {name.rpartition(".")[2] for name in names(cache)} == {"lock"}
    assert build_engine(semantic_model).path.is_file()


def test_a_full_disk_leaves_the_old_engine(semantic_model: Path) -> None:
    first = build_engine(semantic_model)
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    build_engine({str(semantic_model)!r}, rebuild=True)
except OSError:
    print("full")
"""
    assert run_python(code).communicate(timeout=120)[0].splitlines()[-1] == "full"
    assert read_engine(first.path) == first


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"SEGINFER_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"SEGINFER_CACHE": "~/c"}, "/home/me/c"),
        ({"SEGINFER_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/seginfer"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/seginfer"),
        ({}, "/home/me/.cache/seginfer"),
    ],
)
def test_the_folder_is_where_the_environment_says(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SEGINFER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


@pytest.mark.parametrize("name", ["~nosuchuser/x", "~nosuchuser"])
def test_a_home_that_is_nobodys_is_one_error(name: str, semantic_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINFER_CACHE", name)
    with pytest.raises(OutputWriteError, match=r"no place for the engine cache.*set SEGINFER_CACHE"):
        cache_folder()
    with pytest.raises(OutputWriteError, match="no place for the engine cache"):
        build_engine(semantic_model)


def test_a_relative_folder_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGINFER_CACHE", "engines")
    assert cache_folder() == tmp_path / "engines"


@pytest.mark.parametrize(
    "name", ["pitch.onnx", "a b/ü.onnx", "..hidden.onnx", f"{'long' * 60}.onnx", "ß.onnx", "x.y.onnx"]
)
def test_every_model_name_makes_a_name_that_is_safe(name: str, cache: Path, semantic_model: Path) -> None:
    key = engine_key(semantic_model, EngineOptions())
    path = entry_path(cache, Path(name), key)
    assert path.parent == cache
    assert ENGINE_NAME.fullmatch(path.name)
    assert not path.name.startswith(".")
    assert key.digest()[:16] in path.name
    assert entry_path(cache, Path(name), replace(key, seginfer="9")) != path
