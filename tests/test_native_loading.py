"""Why there is no compiled core, and what to do about it: turned off, never built, or built for another machine."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from seginfer import _native


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGINFER_PURE", raising=False)
    monkeypatch.delitem(sys.modules, "seginfer._ext", raising=False)


def describe_after_loading(monkeypatch: pytest.MonkeyPatch) -> str:
    """Load the core once more and return what `seginfer doctor` says then."""
    core, reason = _native._load()
    assert core is None
    monkeypatch.setattr(_native, "core", core)
    monkeypatch.setattr(_native, "_reason", reason)
    return _native.describe()


def test_a_core_that_is_turned_off_says_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINFER_PURE", "1")
    assert describe_after_loading(monkeypatch) == "NumPy; no compiled core: SEGINFER_PURE=1 disables it; unset it"


def test_a_core_that_was_never_built_asks_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "seginfer._ext":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Nowhere(), *sys.meta_path])
    found = describe_after_loading(monkeypatch)
    assert found.startswith("NumPy; no compiled core: it was not built when seginfer was installed; ")
    assert "install a C++17 compiler" in found


def test_a_core_that_does_not_load_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "_ext.so"
    library.write_bytes(b"not for this machine")

    class Finder:
        def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
            return spec_from_file_location(name, library) if name == "seginfer._ext" else None

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    found = describe_after_loading(monkeypatch)
    assert "it was built and does not load" in found
    assert str(library) in found, "the reason of the dynamic loader"
    assert "pip install --force-reinstall --no-deps --no-binary seginfer seginfer" in found
    assert "was not built" not in found


def test_a_module_that_the_core_needs_is_not_taken_for_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "seginfer._ext":
                raise ModuleNotFoundError("No module named 'seginfer._errors'", name="seginfer._errors")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert "does not load (No module named 'seginfer._errors')" in describe_after_loading(monkeypatch)
