"""Cubins are shipped, or compiled once and kept; no damaged or foreign one is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seginfer._cuda import compiler
from seginfer._cuda.__main__ import main


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty package and an empty cache, and a compiler that counts."""
    monkeypatch.setattr(compiler, "SHIPPED", tmp_path / "package")
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "compile_cubin", lambda architecture: f"\x7fELF for {architecture}".encode())
    return tmp_path / "package", tmp_path / "cache" / "kernels"


def test_a_cubin_is_compiled_once_and_then_read_from_the_cache(places: tuple[Path, Path]) -> None:
    _, cache = places
    assert [origin for origin, _ in compiler.cubins("sm_87")] == ["NVRTC"]
    origins, contents = zip(*compiler.cubins("sm_87"), strict=True)
    assert origins == (str(cache), "NVRTC"), "and the compiler is asked where the driver refuses the cached one"
    assert set(contents) == {b"\x7fELF for sm_87"}
    assert [origin for origin, _ in compiler.cubins("sm_90")] == ["NVRTC"]
    assert len(list(cache.iterdir())) == 2


def test_a_shipped_cubin_comes_first(places: tuple[Path, Path]) -> None:
    package, _ = places
    package.mkdir()
    compiler.write_cubin(package, "sm_87", b"shipped")
    assert next(compiler.cubins("sm_87")) == (str(package), b"shipped")


@pytest.mark.parametrize("damage", [b"", b"\x7fELF for sm_8", b"\x7fELF for sm_87\0", b"\x7fELF for sm_90"])
def test_a_damaged_cubin_is_not_loaded(
    damage: bytes, places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, cache = places
    next(compiler.cubins("sm_87"))
    (path,) = cache.iterdir()
    path.write_bytes(damage)
    caplog.set_level("INFO", "seginfer")
    assert [origin for origin, _ in compiler.cubins("sm_87")] == ["NVRTC"]
    assert "does not match the digest in its name" in caplog.text
    assert path.read_bytes() == b"\x7fELF for sm_87", "and it is replaced"


@pytest.mark.usefixtures("places")
def test_cubins_of_other_kernels_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    next(compiler.cubins("sm_87"))
    monkeypatch.setattr(compiler, "source_digest", lambda: "0" * 16)
    assert [origin for origin, _ in compiler.cubins("sm_87")] == ["NVRTC"]


def test_the_digest_names_every_header_and_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "seginfer"
    shutil.copytree(compiler.include_folder() / "seginfer", folder)
    monkeypatch.setattr(compiler, "include_folder", lambda: tmp_path)

    def digest() -> str:
        compiler.source_digest.cache_clear()
        return compiler.source_digest()

    try:
        seen = [digest()]
        for header in sorted(path for path in folder.rglob("*") if path.is_file()):
            header.write_text(header.read_text() + "// changed\n")
            seen.append(digest())
        monkeypatch.setitem(compiler.OPTIONS, "fma", True)
        seen.append(digest())
    finally:
        compiler.source_digest.cache_clear()
    assert len(set(seen)) == len(seen) > 20


def test_a_cache_that_cannot_be_written_is_no_failure(
    places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    places[1].parent.write_text("a file")
    caplog.set_level("INFO", "seginfer")
    for _ in range(2):
        assert [origin for origin, _ in compiler.cubins("sm_87")] == ["NVRTC"]
    assert "compiled kernels are not cached" in caplog.text


def test_a_release_build_writes_a_cubin_per_architecture_and_drops_old_ones(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    package, _ = places
    package.mkdir()
    (package / "sm_87-old-one.cubin").write_bytes(b"old")
    assert main([]) == 0
    assert {path.name.split("-")[0] for path in package.iterdir()} == set(compiler.ARCHITECTURES)
    assert len(list(package.iterdir())) == len(compiler.ARCHITECTURES)
    assert all(next(compiler.cubins(name))[0] == str(package) for name in compiler.ARCHITECTURES)
    assert capsys.readouterr().out.count("KiB") == len(compiler.ARCHITECTURES)
    (package / "folder").write_text("a file")
    assert main([str(package / "folder")]) == 2
    assert "choose another" in capsys.readouterr().err
