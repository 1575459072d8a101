"""NVIDIA's parser and builder as a judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from seginfer import MissingDependencyError
from seginfer.export import check_tensorrt


def build(path: Path) -> None:
    """Fail with what the library said unless it builds an engine of a file; skip where there is no library.

    Raises:
        AssertionError: if parser or builder refuse.
    """
    try:
        report = check_tensorrt(path)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert report.status == "supported", report.summary()
