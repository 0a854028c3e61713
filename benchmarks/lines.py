"""What is compared: two runners in turns, and a line of what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

Timed = tuple[float, Tensor]
"""Seconds, and the result."""


@dataclass(frozen=True)
class Line:
    """One comparison. ratio: peer's seconds or bytes by ours, the median of pairs that ran one after the other; interval:
    where that median lies with 95 % probability; errors: relative, against float32 on the same inputs."""

    name: str
    ratio: float
    ratio_min: float
    interval: tuple[float, float]
    error: float
    peer_error: float
    seconds: float
    peer_seconds: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


def rounds(runners: Sequence[Callable[[], Timed]], count: int, tick: Callable[[], None]) -> list[list[Timed]]:
    """Each runner once to warm up, then `count` times, in turns; for each round the results of all."""
    for run in runners:
        run()
        tick()
    results = []
    for _ in range(count):
        results.append([])
        for run in runners:
            results[-1].append(run())
            tick()
    return results


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.float() - exact.float()).norm() / exact.float().norm()).item()


def line(name: str, pairs: Iterable[tuple[float, float]], error: float, peer_error: float) -> Line:
    """Of (ours, peer's) seconds, or bytes, of each round."""
    ours, peers = map(list, zip(*pairs, strict=True))
    ratios = [theirs / mine for mine, theirs in zip(ours, peers, strict=True)]
    low, high = interval(ratios)
    return Line(
        name, statistics.median(ratios), min(ratios), (low, high), error, peer_error,
        statistics.median(ours), statistics.median(peers),
    )  # fmt: skip


def interval(ratios: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """95 % of the medians of samples drawn from the rounds (the bootstrap's percentile interval)."""
    drawn = np.random.default_rng(0).choice(np.asarray(ratios), (draws, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)
