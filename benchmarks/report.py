"""Make the README's table and a plot of results of run.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _settings import GOALS

EXAMPLES = """examples:
  python benchmarks/report.py benchmarks/results/cpu-2core.json                       # the table on standard output
  python benchmarks/report.py benchmarks/results/cpu-2core.json --readme README.md    # between its two markers
  python benchmarks/report.py benchmarks/results/cpu-2core.json --plot benchmarks/results/cpu-2core.svg
"""
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

_HEAD = "| work | compared with | its time | seginfer | ratio | goal |\n| --- | --- | ---: | ---: | ---: | ---: |"
_NAMES = {
    "torch": "torch",
    "cv2": "cv2 and NumPy",
    "numpy": "cv2 and NumPy",
    "model_api": "OpenVINO Model API",
    "model_api mask only": "OpenVINO Model API, mask only",
    "mmdeploy": "mmdeploy-runtime",
    "backend": "ONNX Runtime alone",
}
_PANELS = (  # stage, case, title
    ("mask", "smooth", "mask step, smooth logits"),
    ("mask", "noise", "mask step, noise"),
    ("preprocess", "frame", "preprocess step"),
    ("end_to_end", "small", "image to mask, small network"),
)


class ReportError(Exception):
    """The report cannot be made. The message has the remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = _parser().parse_args(argv)
    try:
        results = _read(args.results)
        text = table(results)
        if args.readme:
            fill_in(args.readme, text, is_quick=results["quick"])
        if args.plot:
            plot(results, args.plot)
        if not (args.readme or args.plot):
            sys.stdout.write(text + "\n")
    except ReportError as error:
        sys.stderr.write(f"report.py: {error}\n")
        return 2
    return 0


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of goals and peers, with its source."""
    rows = [*_goal_rows(results), *_camera_row(results)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([_HEAD, *lines, "", _origin(results)])


def fill_in(readme: Path, text: str, *, is_quick: bool) -> None:
    """Write the table between the markers of a Markdown file.

    Raises:
        ReportError: if the markers are missing, or the results are those of a quick run.
    """
    if is_quick:
        raise ReportError("these are results of a --quick run, which are meaningless; run again without --quick")
    content = readme.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ReportError(f"{readme.name} lacks the lines {BEGIN} and {END}; put them where the table belongs")
    written = readme.with_suffix(".tmp")
    written.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    written.replace(readme)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the medians of all cases, as .svg or .png."""
    try:
        import matplotlib
    except ImportError as error:
        raise ReportError("the plot needs matplotlib; pip install 'seginfer[bench]'") from error
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "seginfer"  # equal numbers make equal files
    from matplotlib import pyplot

    panels = [(title, _case(results, stage, case)) for stage, case, title in _PANELS if _case(results, stage, case)]
    if not panels:
        raise ReportError("the results hold no case to plot; run the stages mask, preprocess or end_to_end")
    heights = [len(times) + 1 for _, times in panels]
    figure, all_axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(8, 0.34 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
        sharex=True,  # lengths are comparable between panels
    )
    for axes, (title, times) in zip(all_axes[:, 0], panels, strict=True):
        _draw(axes, title, times)
    medians = [stats["median_ms"] for _, times in panels for stats in times.values()]
    all_axes[-1, 0].set_xlim(min(medians) / 2, max(medians) * 4)
    all_axes[-1, 0].set_xlabel("median, ms (logarithmic)", fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    pyplot.close(figure)


def _draw(axes: Any, title: str, times: dict[str, Any]) -> None:
    ordered = sorted(times, key=lambda name: -times[name]["median_ms"])
    medians = [times[name]["median_ms"] for name in ordered]
    colors = ["#2a6fbb" if name == "seginfer" else "#b9bec6" for name in ordered]
    bars = axes.barh([_NAMES.get(name, name) for name in ordered], medians, color=colors)
    axes.bar_label(bars, [f"{median:.3g} ms" for median in medians], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _goal_rows(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    compared = {name: (stage, *pair) for stage, name, pair in _compared(results)}
    for name in GOALS:
        yield _goal_row(results, name, compared.get(name))
        if name == "end_to_end_vs_model_api":
            yield from _other_rows(results)


def _goal_row(results: dict[str, Any], name: str, compared: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the cells of one goal.

    `compared` is stage, case and contenders of its ratio.
    """
    goal, number = GOALS[name], results["ratios"][name]
    wanted = f"{'≥' if goal.sense == '>=' else '≤'} {goal.value:g}"
    work, _, peer = goal.work.rpartition(": ")
    what = (work, peer) if work else (peer, "")
    if number is None:
        return (*what, "not measured", "", "", wanted)
    ours = theirs = ""
    if compared is not None:
        stage, case, above, below = compared
        times = _case(results, stage, case)
        ours, theirs = _ms(times["seginfer"]), _ms(times[below if above == "seginfer" else above])
    factor = "x" if goal.sense == ">=" else "x its time"
    unit = {"x": factor, "us": " µs"}.get(goal.unit, f" {goal.unit}")
    return (*what, theirs, ours, f"{number:.3g}{unit}", wanted if goal.is_met(number) else f"{wanted} (missed)")


def _other_rows(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield rows of the small network's peers without a goal."""
    times = _case(results, "end_to_end", "small")
    named = {pair[1] for stage, _, pair in _compared(results) if stage == "end_to_end" and pair[0] == "small"}
    for name in times:
        if name not in ("seginfer", "backend", *named):
            ratio = times[name]["median_ms"] / times["seginfer"]["median_ms"]
            work = "image to mask, small network"
            yield work, _NAMES.get(name, name), _ms(times[name]), _ms(times["seginfer"]), f"{ratio:.3g}x", ""


def _camera_row(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    facts = results["results"].get("camera", {}).get("facts")
    if facts:
        work = f"camera at {facts['rate_hz']:g} Hz, small network: frame to mask"
        delays = f"p50 {facts['p50_ms']:.3g}, p99 {facts['p99_ms']:.3g}, max {facts['max_ms']:.3g} ms"
        yield work, "", "", delays, f"{facts['dropped']} of {facts['frames'] + facts['dropped']} dropped", ""


def _compared(results: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    for stage, content in results["results"].items():
        for name, pair in content["compared"].items():
            yield stage, name, pair


def _case(results: dict[str, Any], stage: str, case: str) -> dict[str, Any]:
    times: dict[str, Any] = results["results"].get(stage, {}).get("cases", {}).get(case, {})
    return times


def _ms(stats: dict[str, float]) -> str:
    return f"{stats['median_ms']:.3g} ms"


def _origin(results: dict[str, Any]) -> str:
    """Return the text below the table: machine, versions, commit, agreement."""
    machine, versions, commit = results["machine"], results["versions"], results["commit"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in ("seginfer", "onnx"))
    sha = (commit["sha"] or "unknown")[:10] + (" with changes" if commit["has_changes"] else "")
    kernels = "compiled kernels" if results["compiled"] else "NumPy, no compiled kernels"
    shares = [
        f"{_NAMES.get(check.removeprefix('share of pixels as '), check)} {100 * share:.1f} %"
        for check, share in results["results"].get("end_to_end", {}).get("checks", {}).items()
        if check.startswith("share of pixels as ")
    ]
    agreement = f" Pixels on which image-to-mask peers agree with seginfer: {', '.join(shares)}." if shares else ""
    return (
        f"Medians on {machine['cores_used']} of {machine['cores']} cores of {machine['processor']}, "
        f"{machine['date']}, commit {sha} ({kernels}), {packages}.{agreement} "
        "Method: [benchmarks](benchmarks/README.md)."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot read {path.name}: {error}; write it with run.py --json") from error
    if results.get("schema") != 1 or set(results.get("ratios", ())) != set(GOALS):
        raise ReportError(f"expected results of this version of run.py, got {path.name} of another; run it again")
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a JSON file of run.py")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write the table between the markers of this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the times, as .svg or .png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
