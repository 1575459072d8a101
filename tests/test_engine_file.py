"""An engine and its sidecar: whatever is wrong with them is found before a library loads anything."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_cases import edit_sidecar, flip_byte, needs_rtx
from models import SPECS, save_model
from refusal import refuses

from seginfer import BackendError, InputError, MissingFileError, ModelFileError, OutputWriteError, SegInferError
from seginfer._system import atomic as atomic
from seginfer._tensorrt import engine_file, engines
from seginfer._tensorrt.engine_file import SCHEMA, EngineFile, check_fits, read_engine, sidecar_path, write_engine
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.key import EngineGpu, EngineKey
from seginfer._tensorrt.report import EngineReport
from seginfer.backends._tensorrt_execution import read_checked

pytestmark = needs_rtx

ORIN = EngineGpu("Orin", (8, 7), "12.6 (540.4.0)", 16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    folder = tmp_path_factory.mktemp("engine")
    return build_engine(save_model(folder / "tiny.onnx", SPECS["semantic"]), folder / "tiny.engine")


@pytest.fixture
def engine(built: EngineFile, tmp_path: Path) -> Path:
    """A copy of an engine and its sidecar, for a test to damage."""
    for path in (built.path, sidecar_path(built.path)):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path / built.path.name


def test_an_engine_is_read_as_it_was_written(built: EngineFile) -> None:
    assert read_engine(built.path) == built
    assert built.spec == SPECS["semantic"]
    assert built.model == "tiny.onnx"
    assert built.engine_bytes == built.report.engine_bytes == built.path.stat().st_size
    assert (built.report.library, built.report.version) == (built.key.library, built.key.library_version)


def test_a_build_into_a_file_leaves_nothing_else(built: EngineFile) -> None:
    names = sorted(path.name for path in built.path.parent.iterdir())
    assert names == ["tiny.engine", "tiny.engine.json", "tiny.onnx"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _swap(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n")


def _swap_for_one_of_that_size(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        pytest.param(_truncate, "got ", id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), "got 0", id="empty"),
        pytest.param(_swap, "got 6", id="foreign"),
        pytest.param(_swap_for_one_of_that_size, "sha256", id="foreign, of the same size"),
        pytest.param(lambda path: flip_byte(path, 0), "sha256", id="first bit"),
        pytest.param(lambda path: flip_byte(path, 100_000), "sha256", id="a bit in the middle"),
        pytest.param(lambda path: flip_byte(path, -1), "sha256", id="last bit"),
    ],
)
def test_a_damaged_engine_is_refused(damage: Callable[[Path], object], word: str, engine: Path) -> None:
    damage(engine)
    with refuses(ModelFileError, str(engine), word, "copy both files again", "`seginfer build`"):
        read_engine(engine)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not text"),
        (b"[]", "no schema"),
        (b'{"schema": "1"}', "no schema"),
        (f'{{"schema": {SCHEMA}}}'.encode(), "must not be edited"),
        (f'{{"schema": {SCHEMA}, "content": []}}'.encode(), "must not be edited"),
    ],
)
def test_a_sidecar_that_is_none_is_refused(content: bytes, word: str, engine: Path) -> None:
    sidecar_path(engine).write_bytes(content)
    with refuses(ModelFileError, f"{engine.name}.json", word, "`seginfer build`"):
        read_engine(engine)


def test_every_flipped_bit_of_a_sidecar_is_noticed(engine: Path) -> None:
    """Also those that leave valid JSON: a digit of the spec would change masks without anybody knowing."""
    whole = sidecar_path(engine).read_bytes()
    for at in range(0, len(whole), 7):
        flip_byte(sidecar_path(engine), at)
        with pytest.raises(ModelFileError):
            read_engine(engine)
        sidecar_path(engine).write_bytes(whole)
    assert read_engine(engine)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda content: content.pop("key"), "key"),
        (lambda content: content.pop("engine_bytes"), "engine_bytes"),
        (lambda content: content.update(surplus=1), "surplus"),
        (lambda content: content["key"].update(gpu="Orin"), "key.gpu"),
        (lambda content: content["key"]["options"].update(optimization_level=9), "optimization_level"),
        (lambda content: content["report"].update(kernels="many"), "report.kernels"),
        (lambda content: content["spec"].update(task="depth"), "task"),
    ],
)
def test_a_sidecar_of_another_structure_names_the_place(
    edit: Callable[[dict[str, Any]], object], word: str, engine: Path
) -> None:
    edit_sidecar(engine, lambda document: edit(document["content"]), seal=True)
    with refuses(ModelFileError, f"{engine.name}.json", word):
        read_engine(engine)


@pytest.mark.parametrize(("schema", "word"), [(SCHEMA + 1, "update seginfer"), (SCHEMA - 1, "an older seginfer")])
def test_a_sidecar_of_another_schema_says_what_to_do(schema: int, word: str, engine: Path) -> None:
    edit_sidecar(engine, lambda document: document.update(schema=schema), seal=False)
    with refuses(ModelFileError, str(engine), f"schema {schema}, this one reads {SCHEMA}", word):
        read_engine(engine)


def test_a_missing_half_is_named(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with refuses(ModelFileError, str(engine), "no sidecar tiny.engine.json", "copy both files"):
        read_engine(engine)
    engine.unlink()
    with refuses(MissingFileError, str(engine), "`seginfer build`"):
        read_engine(engine)


def test_the_sidecar_of_another_engine_does_not_vouch_for_this_one(engine: Path, tmp_path: Path) -> None:
    other = build_engine(save_model(tmp_path / "o.onnx", SPECS["half precision"]), tmp_path / "other.engine")
    shutil.copyfile(sidecar_path(other.path), sidecar_path(engine))
    with refuses(ModelFileError, str(engine), "sidecar describes"):
        read_engine(engine)


def test_an_engine_can_be_moved_and_renamed_with_its_sidecar(built: EngineFile, engine: Path) -> None:
    moved = engine.with_name("pitch.engine")
    sidecar_path(engine).rename(sidecar_path(moved))
    engine.rename(moved)
    assert read_engine(moved) == replace(built, path=moved)


@pytest.mark.parametrize(
    ("mine", "here", "words"),
    [
        ({}, {"library": "TensorRT"}, ("library TensorRT for RTX", "here is TensorRT")),
        ({}, {"library_version": "1.7.1.117"}, ("for TensorRT for RTX 1.7.1.116", "here is 1.7.1.117")),
        ({}, {"platform": "linux-aarch64"}, ("platform linux-x86_64", "here is linux-aarch64")),
        ({"gpu": ORIN}, {"gpu": replace(ORIN, name="Thor")}, ("GPU Orin", "here is Thor")),
        ({"gpu": ORIN}, {"gpu": replace(ORIN, compute_capability=(8, 6))}, ("capability 8.7", "capability 8.6")),
        ({"gpu": ORIN}, {"gpu": replace(ORIN, multiprocessors=8)}, ("16 multiproc", "here is Orin", "8 multiproc")),
        ({"gpu": ORIN}, {"gpu": None}, ("GPU Orin", "here is none")),
        ({"seginfer": "0.1.9"}, {"seginfer": "0.2.0"}, ("seginfer 0.1", "here is 0.2")),
    ],
)
def test_an_engine_for_something_else_is_refused_by_name(
    mine: dict[str, Any], here: dict[str, Any], words: tuple[str, ...], built: EngineFile
) -> None:
    base = replace(built.key, library_version="1.7.1.116", platform="linux-x86_64")
    with refuses(BackendError, str(built.path), "tiny.onnx", "`seginfer build`", *words):
        check_fits(replace(built, key=replace(base, **mine)), replace(base, **here))


def test_an_engine_that_was_built_without_a_gpu_fits_any(built: EngineFile, caplog: pytest.LogCaptureFixture) -> None:
    check_fits(built, built.key)
    check_fits(built, replace(built.key, gpu=ORIN))
    check_fits(built, replace(built.key, seginfer="0.1.99"))
    assert not caplog.records
    turing = EngineGpu("NVIDIA T4", (7, 5), "12.6")
    with refuses(BackendError, "for GPU of compute capability 8.0 or newer, and here is NVIDIA T4", "build tiny.onnx"):
        check_fits(built, replace(built.key, gpu=turing))


def test_another_driver_is_a_warning(built: EngineFile, caplog: pytest.LogCaptureFixture) -> None:
    def with_driver(driver: str) -> EngineKey:
        return replace(built.key, gpu=replace(ORIN, driver=driver))

    check_fits(replace(built, key=with_driver("12.6 (540.4.0)")), with_driver("12.6 (540.5.0)"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for word in ("540.4.0", "540.5.0", "`seginfer build`"):
        assert word in record.getMessage()


def test_an_output_must_have_the_suffix_by_which_it_is_opened(semantic_model: Path, tmp_path: Path) -> None:
    with refuses(InputError, ".engine", "m.plan"):
        build_engine(semantic_model, tmp_path / "m.plan")


@pytest.mark.parametrize(
    "target",
    [
        "{tmp}/no/such/m.engine",
        "/proc/m.engine",
        "{tmp}/m.engine",
        "{tmp}/model.onnx/m.engine",
        f"{{tmp}}/{'m' * 300}.engine",
    ],
)
def test_an_output_that_cannot_be_written_is_known_before_the_build(
    target: str, semantic_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.engine").mkdir()
    steps: list[object] = []
    with pytest.raises(OutputWriteError, match=r"cannot write .*m\.engine"):
        build_engine(semantic_model, target.format(tmp=tmp_path), on_progress=steps.append)
    assert steps == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.engine", "model.onnx"]


def test_an_engine_that_is_built_again_replaces_the_old_one_whole(engine: Path, tmp_path: Path) -> None:
    before = read_engine(engine)
    raw = save_model(tmp_path / "raw.onnx", SPECS["raw pixels"])
    after = build_engine(raw, engine)
    assert read_engine(engine) == after
    assert after.key.onnx_sha256 != before.key.onnx_sha256
    content = json.loads(sidecar_path(engine).read_text())["content"]
    assert content["model"] == "raw.onnx"


def test_a_build_that_fails_leaves_the_old_engine(engine: Path, semantic_model: Path) -> None:
    before = read_engine(engine)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(semantic_model, engine, on_progress=interrupt)
    assert read_engine(engine) == before
    assert sorted(path.name for path in engine.parent.iterdir()) == ["model.onnx", "tiny.engine", "tiny.engine.json"]


def test_a_model_that_changes_during_the_build_has_no_engine(semantic_model: Path, tmp_path: Path) -> None:
    def touch(_: object) -> None:
        save_model(semantic_model, SPECS["binary"])

    with refuses(ModelFileError, "changed while"):
        build_engine(semantic_model, tmp_path / "m.engine", on_progress=touch)
    assert not list(tmp_path.glob("*.engine*"))


def test_a_model_that_is_replaced_while_it_is_read_has_no_engine(
    semantic_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spec would be that of the old file, and its network that of the new one."""
    read: Any = vars(engines)["read_model"]

    def read_and_replace(path: str | Path, **options: Any) -> Any:
        model = read(path, **options)
        save_model(semantic_model, SPECS["binary"])
        return model

    monkeypatch.setattr(engines, "read_model", read_and_replace)
    with refuses(ModelFileError, "changed while"):
        build_engine(semantic_model, tmp_path / "m.engine")
    assert not list(tmp_path.glob("*.engine*"))


@pytest.mark.parametrize("moment", ["read_sidecar", "file_stamp"])
@pytest.mark.parametrize(("gone", "kind"), [(True, MissingFileError), (False, ModelFileError)])
def test_an_engine_that_vanishes_while_it_is_read_is_missing(
    moment: str, gone: bool, kind: type[SegInferError], engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(engine_file, moment)

    def then_vanish(path: str | Path) -> Any:
        found = real(path)
        engine.unlink()
        if not gone:
            engine.symlink_to(engine)  # what can neither be opened nor looked at, not even by a superuser
        return found

    monkeypatch.setattr(engine_file, moment, then_vanish)
    with refuses(kind, str(engine), "check"):
        read_engine(engine)


def test_an_engine_that_changes_before_it_is_loaded_is_not_loaded(engine: Path) -> None:
    found = read_engine(engine)
    assert read_checked(found) == engine.read_bytes()
    flip_byte(engine, 100)
    with refuses(BackendError, str(engine), "was replaced", "build it again"):
        read_checked(found)
    engine.unlink()
    with refuses(MissingFileError, str(engine), "was deleted", "build it again"):
        read_checked(found)


def test_through_a_link_engine_and_sidecar_are_written_side_by_side(engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deployed"
    folder.mkdir()
    link = folder / "current.engine"
    link.symlink_to(engine)
    assert read_engine(link) == replace(read_engine(engine), path=link)
    new = build_engine(save_model(tmp_path / "raw.onnx", SPECS["raw pixels"]), link)
    assert read_engine(link) == new == replace(read_engine(engine), path=link)
    assert new.model == "raw.onnx"
    assert [path.name for path in folder.iterdir()] == ["current.engine"]
    assert link.is_symlink()


def test_a_link_may_have_a_sidecar_of_its_own(engine: Path, tmp_path: Path) -> None:
    """As in a store that names files by their hashes."""
    (tmp_path / "ab").write_bytes(engine.read_bytes())
    (tmp_path / "current.engine").symlink_to("ab")
    sidecar_path(engine).rename(tmp_path / "current.engine.json")
    assert read_engine(tmp_path / "current.engine").model == "tiny.onnx"


def test_two_builds_of_one_name_never_mix(built: EngineFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is stopped between the names of its engine and its sidecar, and the other may do what it can meanwhile."""
    target = tmp_path / "m.engine"
    first_is_between, second_is_done = threading.Event(), threading.Event()
    real = os.replace

    def replace_and_wait(part: Path, name: Path) -> None:
        real(part, name)
        if threading.current_thread() is first and name == target:
            first_is_between.set()
            second_is_done.wait(1)

    def write(content: bytes) -> None:
        def build(part: Path) -> EngineReport:
            part.write_bytes(content)
            return built.report

        write_engine(target, Path("tiny.onnx"), built.key, built.spec, build)

    first = threading.Thread(target=write, args=(b"first",))
    monkeypatch.setattr(os, "replace", replace_and_wait)
    first.start()
    assert first_is_between.wait(30)

    def write_second() -> None:
        write(b"second")
        second_is_done.set()

    second = threading.Thread(target=write_second)
    second.start()
    first.join()
    second.join()
    assert read_engine(target).engine_bytes == len(b"second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.engine", "m.engine.json"]
