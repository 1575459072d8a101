"""A whole run of the full ring leaves a record, others do not, and the short ring shows how old it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import full_record
import pytest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

CONFTEST = """
import full_record
def pytest_terminal_summary(terminalreporter, exitstatus, config):
    full_record.summarize(terminalreporter, exitstatus, config)
"""
TESTS = """
import pytest
@pytest.mark.full
def test_long(): pass
@pytest.mark.full
def test_broken(): assert False
@pytest.mark.full
def test_elsewhere(): pytest.skip("not here")
def test_short(): pass
"""
SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "-m 'not full' -p no:cacheprovider"
markers = ["full"]
"""


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", root, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with three tests of the full ring, one of which fails, and one of the short ring."""
    for name, text in (("pyproject.toml", SETTINGS), ("tests/conftest.py", CONFTEST), ("tests/test_a.py", TESTS)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def run(root: Path, *arguments: str) -> str:
    """Run pytest in a repository and return what it printed."""
    own = {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **own, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take longer than the tests
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True).stdout


def record(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "tests" / "full-record.json").read_text())
    return found


def test_a_whole_run_is_recorded_and_its_age_is_shown(root: Path) -> None:
    assert full_record.age(root / "tests").startswith("the full ring has no record")
    first = git(root, "rev-parse", "HEAD")
    run(root, "-m", "full")
    found = record(root)
    assert (found.pop("commit"), found.pop("has_changes"), len(found.pop("date"))) == (first, False, 10)
    assert found == {"passed": 1, "failed": 1, "error": 0, "skipped": 1}
    (root / "tests" / "test_a.py").write_text(TESTS + "\n")
    full_record.write(root / "tests", found)
    assert record(root)["has_changes"] is True
    git(root, "add", ".")
    git(root, "commit", "-qm", "record")
    git(root, "commit", "-qm", "another", "--allow-empty")
    printed = run(root)
    assert "warning: the full ring last ran 2 commits ago with uncommitted changes, 20" in printed
    assert ": 1 passed, 1 failed, 1 skipped\n" in printed
    assert "full ring" not in run(root, "tests/test_a.py")


@pytest.mark.parametrize("selection", [["-k", "long"], ["tests/test_a.py"], ["-x"]], ids=" ".join)
def test_a_part_of_the_ring_is_not_recorded(selection: list[str], root: Path) -> None:
    assert "1 passed" in run(root, "-m", "full", *selection)
    assert not (root / "tests" / "full-record.json").exists()


def test_an_interrupted_run_is_not_recorded(root: Path) -> None:
    (root / "tests" / "test_b.py").write_text("import pytest\n@pytest.mark.full\ndef test(): raise KeyboardInterrupt\n")
    assert "1 passed" in run(root, "-m", "full")
    assert not (root / "tests" / "full-record.json").exists()


def test_without_a_repository_of_its_own_nothing_is_written_or_said(root: Path) -> None:
    inner = root / "unpacked"
    shutil.copytree(root / "tests", inner / "tests")
    shutil.copyfile(root / "pyproject.toml", inner / "pyproject.toml")
    assert "1 failed" in run(inner, "-m", "full")
    assert not (inner / "tests" / "full-record.json").exists()
    assert full_record.age(inner / "tests") == ""


def test_the_record_of_an_unknown_commit_says_so(root: Path) -> None:
    full_record.write(root / "tests", dict.fromkeys(full_record.OUTCOMES, 1))
    path = root / "tests" / "full-record.json"
    path.write_text(json.dumps({**record(root), "commit": "0" * 40}))
    assert "last ran on a commit that is not in this clone" in full_record.age(root / "tests")
