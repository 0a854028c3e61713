"""Euler's method along the velocity field that the transformer predicts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x, t) to dx/dt: `(b, tokens, 64)` and a 0-d noise level in [0, 1] to `(b, tokens, 64)`."""


def euler(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    on_step: Callable[[int, Tensor], None] = lambda step, clean: None,
) -> Tensor:
    """Follow `velocity` from noise level sigmas[0] to sigmas[-1], in float32.

    `x` is `(b, tokens, 64)` packed latents, but any shape works. After each prediction `on_step` gets the step's
    number and the clean picture as guessed at this step, x - sigma * velocity.
    """
    x = x.float()
    for step, (now, following) in enumerate(pairwise(sigmas)):
        v = velocity(x, now)
        on_step(step, x - now * v)
        x = x + (following - now) * v
    return x


def bfl_noise(batch: int, height: int, width: int, seed: int) -> Tensor:
    """The noise Black Forest Labs' code draws: bfloat16 on the CPU, `(batch, 16, height, width)` latent cells.

    It is drawn for a whole number of tokens (even sizes) and cut back. For one seed it has nothing in common with
    noise drawn in float32.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    even = height + height % 2, width + width % 2
    return torch.randn(batch, 16, *even, dtype=torch.bfloat16, generator=generator)[:, :, :height, :width]
