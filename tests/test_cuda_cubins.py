"""Cubins are shipped, or compiled once and kept; no damaged or foreign one is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import share_kernels

from seginfer._cuda import compiler
from seginfer._cuda.__main__ import main
from seginfer._cuda.kernels import KERNELS, OVERLAY, source_of


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty package and an empty cache, and a compiler that counts."""
    monkeypatch.setattr(compiler, "SHIPPED", tmp_path / "package")
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        compiler, "compile_cubins", lambda name, *_: iter([("NVRTC", f"\x7fELF\2\1\1\x33\7 for {name}".encode())])
    )
    return tmp_path / "package", tmp_path / "cache" / "kernels"


def test_a_cubin_is_compiled_once_and_then_read_from_the_cache(places: tuple[Path, Path]) -> None:
    _, cache = places
    assert [origin for origin, _ in compiler.cubins("sm_87", OVERLAY)] == ["NVRTC"]
    origins, contents = zip(*compiler.cubins("sm_87", OVERLAY), strict=True)
    assert origins == (str(cache), "NVRTC"), "and the compiler is asked where the driver refuses the cached one"
    assert set(contents) == {b"\x7fELF\2\1\1\x33\7 for sm_87"}
    assert [origin for origin, _ in compiler.cubins("sm_90", OVERLAY)] == ["NVRTC"]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.usefixtures("places")
def test_each_kernel_is_compiled_alone_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[list[str]] = []

    def compile_one(_: str, kernels: list[str]) -> Iterator[tuple[str, bytes]]:
        compiled.append(kernels)
        yield "NVRTC", b"\x7fELF"

    monkeypatch.setattr(compiler, "compile_cubins", compile_one)
    for kernel in (OVERLAY, "seginfer_mask_float32_2", OVERLAY):
        next(compiler.cubins("sm_87", kernel))
    assert compiled == [[OVERLAY], ["seginfer_mask_float32_2"]]
    assert source_of(["seginfer_mask_float16_3"]).splitlines()[2:] == [
        'extern "C" SEG_KERNEL seginfer_mask_float16_3(const MaskPixel* records) { mask<3, uint16>(records); }'
    ]
    assert len(KERNELS) == len(set(source_of(KERNELS).splitlines()) - {""}) - 5, "an #include per header, and a using"


def test_a_shipped_cubin_comes_first(places: tuple[Path, Path]) -> None:
    package, _ = places
    package.mkdir()
    compiler.write_cubin(package, "sm_87", b"shipped")
    assert next(compiler.cubins("sm_87", OVERLAY)) == (str(package), b"shipped")


@pytest.mark.parametrize(
    "damage",
    [b"", b"\x7fELF\2\1\1\x33\7 for sm_8", b"\x7fELF\2\1\1\x33\7 for sm_87\0", b"\x7fELF\2\1\1\x33\7 for sm_90"],
)
def test_a_damaged_cubin_is_not_loaded(
    damage: bytes, places: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, cache = places
    next(compiler.cubins("sm_87", OVERLAY))
    (path,) = cache.iterdir()
    path.write_bytes(damage)
    caplog.set_level("INFO", "seginfer")
    assert [origin for origin, _ in compiler.cubins("sm_87", OVERLAY)] == ["NVRTC"]
    assert "does not match its digest" in caplog.text
    assert path.read_bytes() == b"\x7fELF\2\1\1\x33\7 for sm_87", "and it is replaced"


@pytest.mark.usefixtures("places")
def test_cubins_of_other_kernels_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    next(compiler.cubins("sm_87", OVERLAY))
    monkeypatch.setattr(compiler, "source_digest", lambda: "0" * 16)
    assert [origin for origin, _ in compiler.cubins("sm_87", OVERLAY)] == ["NVRTC"]


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
        monkeypatch.setattr(compiler, "OPTIONS", ("--fmad=true",))
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
        assert [origin for origin, _ in compiler.cubins("sm_87", OVERLAY)] == ["NVRTC"]
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
    assert all(next(compiler.cubins(name, OVERLAY))[0] == str(package) for name in compiler.ARCHITECTURES)
    assert capsys.readouterr().out.count("KiB") == len(compiler.ARCHITECTURES)
    (package / "folder").write_text("a file")
    assert main([str(package / "folder")]) == 2
    assert "choose another" in capsys.readouterr().err


def test_gpu_tests_with_caches_of_their_own_compile_once(
    places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [places[1].parent.with_name(name) for name in ("first", "second")]
    origins = []
    for folder in folders:
        share_kernels(tmp_path_factory, folder)
        monkeypatch.setenv("SEGINFER_CACHE", str(folder))
        origins.append(next(compiler.cubins("sm_7", OVERLAY))[0])
    assert origins == ["NVRTC", str(folders[1] / "kernels")]
