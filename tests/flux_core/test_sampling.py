"""Euler on fields whose solution is known, and Black Forest Labs' noise."""

import pytest
import torch

from flux_core import sampling, schedule


def test_a_straight_flow_is_followed_exactly():
    """x_t = (1 - t) * clean + t * noise has the constant velocity noise - clean: any schedule ends at clean."""
    clean, noise = torch.randn(2, 1, 6, 64)
    guesses = []
    x = sampling.euler(lambda x, t: noise - clean, noise, schedule.sigmas(5, 1.15), lambda step, x0: guesses.append(x0))
    assert torch.allclose(x, clean, atol=1e-6)
    assert len(guesses) == 5
    assert all(torch.allclose(guess, clean, atol=1e-6) for guess in guesses)


def test_halving_the_step_halves_the_error():
    """dx/dt = x from t = 1 to 0 multiplies by 1/e; Euler is of first order."""
    errors = [
        abs(sampling.euler(lambda x, t: x, torch.ones(1), schedule.sigmas(steps)).item() - torch.e**-1)
        for steps in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_noise_is_the_one_of_black_forest_labs():
    """`get_noise` of black-forest-labs/flux: bfloat16 on the CPU, for a whole number of tokens."""
    generator = torch.Generator("cpu").manual_seed(7)
    theirs = torch.randn(1, 16, 2 * -(-70 // 16), 2 * -(-100 // 16), dtype=torch.bfloat16, generator=generator)
    assert torch.equal(sampling.bfl_noise(1, 10, 14, 7), theirs)
    assert torch.equal(sampling.bfl_noise(1, 9, 13, 7), theirs[:, :, :9, :13])
