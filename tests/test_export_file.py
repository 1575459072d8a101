"""An exported file is written once, and its certificate is appended."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from half_networks import HiddenOffset
from networks import SIZE, Tiny, make_spec, pictures
from torch import Tensor, nn

from seginfer import OutputWriteError, read_model
from seginfer._files.model_file import METADATA_KEY, certificate_matches
from seginfer.export import _onnx, export_onnx

IMAGES = pictures((90, 120), SIZE)
COUNTERS = Path("/proc/self/io")


@contextmanager
def written() -> Iterator[list[int]]:
    """Count the bytes that this process writes, whatever writes them."""

    def count() -> int:
        return int(dict(line.split(": ") for line in COUNTERS.read_text().splitlines())["wchar"])

    result = [-count()]
    yield result
    result[0] += count()


class Large(nn.Module):
    """Tiny with 19 MB of weights that hardly take time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()
        self.wide = nn.Conv2d(3, 512, SIZE)  # one cell for the whole image
        self.head = nn.Conv2d(512, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x) + self.head(self.wide(x))
        return logits


@pytest.mark.skipif(not COUNTERS.exists(), reason="this kernel counts no bytes")
@pytest.mark.parametrize(("precision", "files"), [("fp32", 1.0), ("fp16", 3.0)])
def test_every_graph_is_written_once(precision: str, files: float, tmp_path: Path) -> None:
    """The simulated graph of fp16 has float32 weights: it is twice as large as the file that ships."""
    with written() as count:
        export_onnx(Large(), make_spec(), tmp_path / "m.onnx", images=IMAGES[1:], precision=precision)
    assert count[0] / (tmp_path / "m.onnx").stat().st_size == pytest.approx(files, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_appended_certificate_is_the_only_entry_and_fits_the_file(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    certificate = export_onnx(HiddenOffset(), make_spec(), path, images=IMAGES, precision=precision)
    onnx.checker.check_model(path, full_check=True)
    assert [entry.key for entry in onnx.load(path).metadata_props] == [METADATA_KEY]
    spec = read_model(path).spec
    assert spec.provenance.certificate == certificate
    assert certificate_matches(path, spec)


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_write_that_fails_at_any_time_leaves_the_old_file(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")
    calls = []

    def fail_at(name: str) -> None:
        original = getattr(_onnx, name)

        def write(*args: Any) -> Any:
            calls.append(name)
            result = original(*args)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return result

        monkeypatch.setattr(_onnx, name, write)

    fail_at("write_graph")
    fail_at("append_spec")
    with pytest.raises(OutputWriteError, match="No space left"):
        export_onnx(Tiny(), make_spec(), path, images=IMAGES, precision="fp16")
    assert len(calls) == failing
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert path.read_bytes() == b"the old file"
