"""Circumstances of a comparison: images, time, machine and versions."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seginfer._errors import ExportError
from seginfer._spec.certificate import ImageRecord
from seginfer._spec.model_spec import InputSpec
from seginfer._version import __version__

from .._images import Image, image_sha256
from .samples import is_synthetic


def evidence(images: Mapping[str, Image], spec: InputSpec) -> dict[str, Any]:
    """Return images, time and place of a comparison, as fields of a certificate."""
    return {
        "image_records": tuple(ImageRecord(name, image_sha256(image)) for name, image in images.items()),
        "synthetic": is_synthetic(list(images.values()), spec),
        "date": _now().isoformat(timespec="seconds"),
        "host": _host(),
        "versions": versions(),
    }


def _now() -> datetime:
    """Return the time, or that of $SOURCE_DATE_EPOCH, with which an export writes the same bytes again."""
    # https://reproducible-builds.org/specs/source-date-epoch
    text = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return datetime.fromtimestamp(float(text or time.time()), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise ExportError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {text!r}; unset it") from error


def versions() -> dict[str, str]:
    """Return the versions of the packages in an export."""
    import onnx

    return {
        "seginfer": __version__,
        **({"seginfer commit": _commit()} if _commit() else {}),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _host() -> str:
    """Return system and processor, without names of machine and user."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = (names or [platform.processor()])[0]
    return f"{platform.system()} {platform.machine()}" + (f", {processor}" if processor else "")


@functools.cache
def _commit() -> str:
    """Return the commit of a checkout of seginfer. It is "" for an installed package."""
    here = Path(__file__)
    try:
        # Only if git tracks this file: an environment may lie inside the user's own repository.
        for command in (["ls-files", "--error-unmatch", here.name], ["describe", "--always", "--abbrev=40", "--dirty"]):
            git = ["git", "-C", str(here.parent), *command]
            done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
