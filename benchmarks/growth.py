"""How the cost of a step grows with the picture: seconds and FLOPs against tokens, and the exponents of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flux_core.cost import step_flops

from .steps import TEXT_TOKENS, OurStep, given


def measured(step: OurStep, sides: Sequence[int], tick: Callable[[], None], repeats: int = 2) -> list[dict[str, Any]]:
    """For square pictures of these sides in pixels: all tokens, seconds at full depth (the quickest of a few), FLOPs."""
    rows = []
    for side in sides:
        what, tokens = given(side), (side // 16) ** 2
        step(what)
        seconds = min(step(what)[0] for _ in range(repeats))
        rows.append(
            {"side": side, "tokens": tokens + TEXT_TOKENS, "seconds": seconds, "flops": step_flops(tokens, TEXT_TOKENS)}
        )
        tick()
    return rows


def exponent(rows: Sequence[dict[str, Any]], what: str) -> float:
    """Of tokens, in the power law that fits best."""
    tokens, values = (np.log([row[name] for row in rows]) for name in ("tokens", what))
    return float(np.polyfit(tokens, values, 1)[0])
