"""The built core: its hardening, read from the file, and the licences of what is linked into it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from native import needs_core

from seginfer import _native

pytestmark = needs_core


def readelf(option: str) -> str:
    command = ["readelf", "--wide", option, _native.core.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("readelf"), reason="needs readelf")
def test_the_core_is_hardened() -> None:
    segments, dynamic, symbols = map(readelf, ("--segments", "--dynamic", "--dyn-syms"))
    assert "GNU_RELRO" in segments
    (stack,) = re.findall(r"GNU_STACK.*? (RWE|RW) +0x", segments)
    assert stack == "RW"
    assert re.search(r"BIND_NOW|\bNOW\b", dynamic)
    assert "TEXTREL" not in dynamic
    checks = set(re.findall(r"UND (__\w+_chk\w*)", symbols))
    assert "__stack_chk_fail" in checks
    assert checks - {"__stack_chk_fail"}, "no function of _FORTIFY_SOURCE"


def test_the_licences_of_what_is_linked_are_installed() -> None:
    found = {
        path.name: path.read_text() for path in distribution("seginfer").files or [] if path.parent.name == "licenses"
    }
    assert found["nanobind.txt"].startswith("Copyright (c) 2022 Wenzel Jakob")
    assert "Redistributions in binary form must reproduce" in found["nanobind.txt"]
    assert found["robin_map.txt"].lstrip().startswith("MIT License")
    assert found["robin_map.txt"].rstrip().endswith("SOFTWARE.")
