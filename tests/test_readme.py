"""What the README says is run, to the letter."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import Tiny, pictures

from seginfer import Certificate, ClassSpec, InputSpec, ModelSpec, read_model
from seginfer._cli import main
from seginfer._system.driver import has_gpu
from seginfer.assets import SOCCER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pitch.onnx").write_bytes((SOCCER / "pitch.onnx").read_bytes())
    frame, other = pictures((360, 640), (120, 200))
    names = {"frame": frame, "other": other, "model": Tiny()}
    assert len(blocks("python")) == 2
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "parity passed" in printed
    assert "onnxruntime" in printed
    assert names["result"].mask.shape == (360, 640)  # type: ignore[attr-defined]
    assert (tmp_path / "mask.png").is_file()
    assert (tmp_path / "field.onnx").is_file()


def test_the_shell_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pitch.onnx", "theirs.onnx"):
        shutil.copyfile(SOCCER / "pitch.onnx", tmp_path / name)
    shutil.copyfile(SOCCER / "spec.json", tmp_path / "spec.json")
    shutil.copyfile(SOCCER / "clip.webm", tmp_path / "clip.mp4")
    shutil.copytree(SOCCER / "samples", tmp_path / "frames")
    lines = blocks("sh")[2].splitlines()
    assert [line.split()[:2] for line in lines] == [["seginfer", "run"], ["seginfer", "attach"]]
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6
    assert (tmp_path / "ours.onnx").is_file()


def test_the_engine_lines_run_as_far_as_the_machine_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SOCCER / "pitch.onnx", tmp_path / "pitch.onnx")
    shutil.copytree(SOCCER / "samples", tmp_path / "frames")
    build, run = (shlex.split(line, comments=True)[1:] for line in blocks("sh")[3].splitlines())
    assert main(build) == 0
    assert (tmp_path / "pitch.engine.json").is_file()
    assert main(run) == (0 if has_gpu() else 2)
    assert has_gpu() or "NVIDIA's driver is not installed" in capsys.readouterr().err


def test_the_export_and_check_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = tuple(f"class {i}" for i in range(11))
    spec = ModelSpec("semantic", InputSpec(size=(64, 96), mean=(0.45,), std=(0.22,)), ClassSpec(names))
    (tmp_path / "spec.json").write_text(spec.to_json())
    export, check = (shlex.split(line, comments=True)[1:] for line in blocks("sh")[4].splitlines())
    torch.manual_seed(0)
    assert main([*export, "--kwargs", '{"divisor": 16}']) == 0
    assert main(check) == 0


def test_ci_runs_the_test_command_of_the_readme() -> None:
    setup, test = (block.strip() for block in blocks("sh")[:2])
    install, _, run = test.rpartition(" && ")
    assert run == ".venv/bin/pytest"
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines.index(install) < lines.index(run)  # other checks are between them; neither is there twice
    assert [line for line in lines if "pip install" in line] == [install]
    assert setup.endswith(".venv/bin/seginfer demo")


def test_the_numbers_are_those_of_the_certificate() -> None:
    certificate = read_model(SOCCER / "pitch.onnx").spec.provenance.certificate
    assert certificate is not None
    assert row(certificate) in README.splitlines()
    assert f"{certificate.images} held-out frames" in README.replace("\n", " ")


def row(c: Certificate) -> str:
    return (
        f"| {c.decisive_agreement:.4%} | {c.pixel_agreement:.4%} of {c.pixels:,} "
        f"| {c.logit_max_error:.1e} | {c.undecided_share:.4%} |"
    )


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "examples/soccer/README.md", "export/zoo/README.md"])
def test_local_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_readme_is_one_screen_long() -> None:
    before, _, rest = README.partition("<!-- benchmarks:begin -->")
    table, _, after = rest.partition("<!-- benchmarks:end -->")  # written by benchmarks/report.py
    assert len((before + after).splitlines()) <= 100
    assert 10 <= len(table.splitlines()) <= 25


def test_the_table_of_the_readme_is_what_the_report_makes_of_the_committed_run() -> None:
    report: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "report.py"]
    report.append(ROOT / "benchmarks" / "results" / "cpu-2core.json")
    made = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert f"<!-- benchmarks:begin -->\n{made.strip()}\n<!-- benchmarks:end -->" in README
