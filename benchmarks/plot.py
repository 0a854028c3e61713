"""The report as a picture: ratios with their intervals, growth against tokens, peak memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (ratios, growth, memory) = pyplot.subplots(1, 3, figsize=(17, 6), width_ratios=(1.6, 1, 1))
    lines = report["lines"][::-1]
    spread = [
        [each["ratio"] - each["interval"][0] for each in lines],
        [each["interval"][1] - each["ratio"] for each in lines],
    ]
    bars = ratios.barh(
        [each["name"] for each in lines], [each["ratio"] for each in lines], xerr=spread, color="#4a7fb5"
    )
    ratios.bar_label(bars, fmt="%.2f", padding=14)
    ratios.axvline(1, color="black", linewidth=0.8)
    ratios.set(title="times as fast", xscale="log")
    ratios.margins(x=0.25)

    rows = report["growth"]["rows"]
    tokens = [row["tokens"] for row in rows]
    growth.loglog(tokens, [row["seconds"] for row in rows], "o-", label="seconds", color="#4a7fb5")
    scale = rows[0]["seconds"] / rows[0]["flops"]
    growth.loglog(tokens, [row["flops"] * scale for row in rows], "--", label="FLOPs, scaled", color="#c0793c")
    growth.set(title="a step", xlabel="tokens, text and picture")
    growth.legend()

    runners = [name for name in report["memory"] if name != "file"]
    memory.bar(runners, [report["memory"][name]["run"] / (1 << 30) for name in runners], color="#4a7fb5")
    memory.axhline(report["memory"]["file"] / (1 << 30), color="#c0793c", linestyle="--", label="the file")
    memory.set(title="peak memory of a run, GB")
    memory.tick_params(axis="x", rotation=30)
    memory.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
