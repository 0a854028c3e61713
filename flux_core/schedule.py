"""The noise levels of a run: a line from 1 to 0, lifted by the picture's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

ShiftKind = Literal["exponential", "linear"]

STRONGEST = 1e7
"""Beyond this factor float32 can't tell the noise levels from 1: the picture would stay noise, or turn black."""


def shift_for(
    tokens: int, base: float = 0.5, maximum: float = 1.15, base_tokens: int = 256, max_tokens: int = 4096
) -> float:
    """mu on the line through (256 tokens, base) and (4096 tokens, maximum), not clamped (Black Forest Labs' sampling).

    `tokens` are those of the picture to be made, references not counted: 4096 at 1024 x 1024 pixels.
    """
    return base + (maximum - base) * (tokens - base_tokens) / (max_tokens - base_tokens)


def time_shift(t: Tensor, mu: float, kind: ShiftKind = "exponential") -> Tensor:
    """Fixes 0 and 1, lifts everything between when mu > 0 (exponential) or mu > 1 (linear).

    exponential: e^mu / (e^mu + (1/t - 1)); linear: mu / (mu + (1/t - 1)). Both as diffusers'
    FlowMatchEulerDiscreteScheduler has them.
    """
    return static_shift(t, _factor(mu, kind))


def _factor(mu: float, kind: ShiftKind) -> float:
    return math.exp(min(mu, 700)) if kind == "exponential" else mu  # 700: about the last that float64 can hold


def static_shift(t: Tensor, shift: float) -> Tensor:
    """shift * t / (1 + (shift - 1) * t): the same curve, its factor given outright (Stable Diffusion 3)."""
    return shift * t / (1 + (shift - 1) * t)


def stretch_to(sigmas: Tensor, terminal: float) -> Tensor:
    """Stretch a schedule that starts at 1 so that its last entry is `terminal` (diffusers' shift_terminal)."""
    scale = (1 - sigmas[-1]) / (1 - terminal)
    return 1 - (1 - sigmas) / scale


def sigmas(
    steps: int | None = None,
    mu: float | None = None,
    *,
    kind: ShiftKind = "exponential",
    shift: float = 1.0,
    terminal: float | None = None,
    custom: Sequence[float] | None = None,
    inverted: bool = False,
) -> Tensor:
    """A whole schedule: `(steps + 1,)` float32, falling from 1 to 0.

    Give `steps`, or `custom` levels in (0, 1] without the final 0. `mu` shifts by size (see `shift_for`); without it
    the schedule is shifted by the constant `shift` (1 leaves it alone). `terminal` stretches the last level before 0.
    `inverted` turns it round, to run from a picture to noise: it then rises from 0 to 1.

    Raises ValueError when steps is below 1, or a level or a shift is out of range.
    """
    levels = _levels(steps, custom)
    factor = shift if mu is None else _factor(mu, kind)
    if not 0 < factor < STRONGEST:
        raise ValueError(f"the shift must be a factor above 0 and below {STRONGEST:g}, not {factor:g}")
    t = static_shift(levels, factor)
    if terminal is not None:
        t = stretch_to(t, terminal)
    return torch.cat([1 - t, t.new_ones(1)] if inverted else [t, t.new_zeros(1)]).float()


def _levels(steps: int | None, custom: Sequence[float] | None) -> Tensor:
    """Unshifted noise levels without the last: 1, 1 - 1/steps, ..., 1/steps; in float64, rounded once at the end."""
    if (steps is None) == (custom is None):
        raise ValueError("give either steps or custom noise levels")
    if custom is not None:
        levels = torch.tensor(custom, dtype=torch.float64)
        if not len(levels) or not ((levels > 0) & (levels <= 1)).all() or not (levels.diff() < 0).all():
            raise ValueError(f"noise levels must fall strictly and lie in (0, 1]: {list(custom)}")
        return levels
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]


def from_strength(schedule: Tensor, strength: float) -> Tensor:
    """The part of a schedule that image to image runs, as Black Forest Labs and diffusers count `strength`.

    1 runs all steps from pure noise, 0 none (a schedule of one entry): it starts int((1 - strength) * steps) steps in.
    """
    steps = len(schedule) - 1
    # Rounded first: 1 - 0.9 is a hair under 0.1 in binary, and a step would depend on it.
    return schedule[int(round((1 - strength) * steps, 6)) :]


def stretched_steps(steps: int, denoise: float) -> int:
    """How many steps the full schedule has of which ComfyUI's `denoise` runs the last `steps`."""
    return int(steps / denoise)


def step_at(schedule: Tensor, sigma: Tensor) -> int:
    """The step of `schedule` that noise level `sigma` belongs to.

    Between two steps' levels, as second order samplers ask for, it is the earlier one.
    """
    return max(0, int((schedule[:-1] >= sigma.flatten()[0] - 1e-6).sum()) - 1)


def along(values: Sequence[float], schedule: Tensor, sigma: Tensor) -> float:
    """The value at noise level `sigma`: `values` spread evenly over the steps and joined by straight lines."""
    place = step_at(schedule, sigma) / max(len(schedule) - 2, 1) * (len(values) - 1)
    below = min(int(place), len(values) - 1)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def within(window: tuple[float, float], schedule: Tensor, sigma: Tensor) -> bool:
    """Whether noise level `sigma` belongs to a step in `window`, from and to a share of all steps."""
    step, steps = step_at(schedule, sigma), len(schedule) - 1
    return round(window[0] * steps) <= step < round(window[1] * steps)
