"""Docstrings are plain technical English: short first sentences, one idea each."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["seginfer", "export", "benchmarks", "examples"]
MEDIAN_WORDS = 9  # of first sentences
SEMICOLONS = 0.03  # share of docstrings that hold one


class Docstring(NamedTuple):
    place: str
    text: str

    @property
    def words(self) -> int:
        """Number of words in the first sentence."""
        return len(re.split(r"(?<=[.!?])\s", self.text.strip())[0].split())


def docstrings(folder: Path) -> list[Docstring]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        Docstring(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text)
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_first_sentences_are_short(folder: str) -> None:
    found = docstrings(ROOT / folder)
    assert found
    long = sorted((one for one in found if one.words > MEDIAN_WORDS), key=lambda one: -one.words)
    assert median(one.words for one in found) <= MEDIAN_WORDS, _listed(long)


@pytest.mark.parametrize("folder", FOLDERS)
def test_sentences_hold_one_idea(folder: str) -> None:
    found = docstrings(ROOT / folder)
    double = [one for one in found if ";" in one.text]
    assert len(double) <= SEMICOLONS * len(found), _listed(double)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_begins_with_a_question_word(folder: str) -> None:
    riddles = [one for one in docstrings(ROOT / folder) if re.match(r"(What|Which|Where|How|Who)\b", one.text)]
    assert not riddles, _listed(riddles)


def _listed(offenders: list[Docstring]) -> str:
    return "\n".join(f"{one.place} ({one.words} words) {one.text.splitlines()[0]}" for one in offenders)
