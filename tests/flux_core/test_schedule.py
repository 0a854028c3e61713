"""The schedule against diffusers' and against the formula written out."""

import math

import numpy
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from flux_core import schedule

SIDES = [256, 512, 768, 1024, 1360, 2048]
STEPS = [4, 7, 20, 28, 50]


def tokens_of(side: int) -> int:
    return (side // 16) ** 2


def diffusers_sigmas(steps: int, mu: float | None = None, custom: list[float] | None = None, **config) -> torch.Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=mu is not None, **config)
    levels = custom if custom is not None else numpy.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(sigmas=levels, mu=mu)
    return scheduler.sigmas


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and (ours - theirs).abs().max().item() <= 1e-6


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("steps", STEPS)
def test_equals_diffusers_and_the_formula(side, steps):
    mu = schedule.shift_for(tokens_of(side))
    ours = schedule.sigmas(steps, mu)
    assert same(ours, diffusers_sigmas(steps, calculate_shift(tokens_of(side), 256, 4096, 0.5, 1.15)))
    slope = (1.15 - 0.5) / (4096 - 256)
    exponent = math.exp(slope * tokens_of(side) + 0.5 - slope * 256)
    written_out = [exponent / (exponent + (1 / t - 1)) if t else 0.0 for t in (1 - i / steps for i in range(steps + 1))]
    assert same(ours, torch.tensor(written_out))


def test_mu_is_not_clamped_beyond_the_line():
    assert [round(schedule.shift_for(tokens), 2) for tokens in (256, 1024, 4096, 16384)] == [0.5, 0.63, 1.15, 3.23]


@pytest.mark.parametrize("steps", STEPS)
def test_other_shifts_equal_diffusers(steps):
    assert same(schedule.sigmas(steps), diffusers_sigmas(steps))
    assert same(schedule.sigmas(steps, shift=3.0), diffusers_sigmas(steps, shift=3.0))
    assert same(schedule.sigmas(steps, 1.15, kind="linear"), diffusers_sigmas(steps, 1.15, time_shift_type="linear"))
    assert same(schedule.sigmas(steps, 1.15, terminal=0.1), diffusers_sigmas(steps, 1.15, shift_terminal=0.1))
    assert same(schedule.sigmas(steps, inverted=True), diffusers_sigmas(steps, invert_sigmas=True))


def test_custom_levels_equal_diffusers():
    levels = [1.0, 0.8, 0.3]
    assert same(schedule.sigmas(custom=levels, mu=0.9), diffusers_sigmas(3, 0.9, custom=levels))


def test_shift_fixes_both_ends_and_lifts_between():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    lifted = schedule.time_shift(t, 1.15)
    assert lifted[0] == 0 and lifted[-1] == 1
    assert (lifted[1:-1] > t[1:-1]).all() and (lifted.diff() > 0).all()


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.3, 0.5, 0.6, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("steps", STEPS)
def test_strength_runs_the_steps_that_diffusers_runs(strength, steps):
    from diffusers import FluxImg2ImgPipeline

    sigmas = schedule.sigmas(steps)
    pipeline = FluxImg2ImgPipeline.__new__(FluxImg2ImgPipeline)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline.scheduler.set_timesteps(sigmas=numpy.linspace(1.0, 1 / steps, steps))
    _, theirs = pipeline.get_timesteps(steps, strength, "cpu")
    # diffusers counts in binary fractions: where steps * strength is a hair off a whole number it may run one more.
    assert len(schedule.from_strength(sigmas, strength)) - 1 == theirs or round(steps * strength, 6) % 1 == 0


def test_nonsense_is_refused():
    for arguments in (
        {"steps": 0},
        {"custom": []},
        {"custom": [0.5, 0.7]},
        {"custom": [2.0]},
        {},
        {"steps": 4, "shift": 0},
    ):
        with pytest.raises(ValueError):
            schedule.sigmas(**arguments)
    with pytest.raises(ValueError, match="factor"):
        schedule.sigmas(4, 1e9)


def test_values_for_every_step_are_those_of_the_steps():
    levels, values = schedule.sigmas(4, 0.8), [1.0, 5.0, 2.0, 7.0]
    assert [schedule.along(values, levels, level) for level in levels[:-1]] == pytest.approx(values)


def test_two_values_rise_along_the_whole_run():
    levels = schedule.sigmas(5, 0.8)
    assert [schedule.along([1.0, 3.0], levels, level) for level in levels[:-1]] == pytest.approx([1, 1.5, 2, 2.5, 3])
    assert schedule.along([4.0], levels, levels[2]) == 4.0


def test_a_level_between_two_steps_belongs_to_the_earlier():
    levels = schedule.sigmas(4)
    assert schedule.step_at(levels, (levels[1] + levels[2]) / 2) == 1
    assert [schedule.step_at(levels, level) for level in levels[:-1]] == [0, 1, 2, 3]


def test_a_window_holds_its_share_of_the_steps():
    levels = schedule.sigmas(10, 1.15)
    inside = [schedule.within((0.2, 0.5), levels, level) for level in levels[:-1]]
    assert inside == [False] * 2 + [True] * 3 + [False] * 5
    assert all(schedule.within((0.0, 1.0), levels, level) for level in levels[:-1])
