"""Whole runs of nodes: loaders and KSampler, as a graph calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .lines import Timed
from .steps import Given, now

STEPS = 4


def ksampler(model: Any, what: Given, seed: int) -> Timed:
    """Four steps of ComfyUI's KSampler node."""
    import nodes

    words = [[what.states, {"pooled_output": what.pooled, "guidance": what.guidance.item()}]]
    latent = {"samples": torch.zeros_like(what.latent)}
    start = now()
    with torch.inference_mode():
        (painted,) = nodes.KSampler().sample(model, seed, STEPS, 1.0, "euler", "simple", words, words, latent)
    return now() - start, painted["samples"]


def runner(model: Any, make: Callable[[int], Given]) -> Callable[[], Timed]:
    """A run with a prompt of its own each time: nothing is known from the one before."""
    number = iter(range(1_000_000))

    def run() -> Timed:
        n = next(number)
        return ksampler(model, make(n), seed=n)

    return run


def loading_runner(load: Callable[[], Any], make: Callable[[int], Given]) -> Callable[[], Timed]:
    """The same from the file on, as the first run after a server's start."""
    number = iter(range(1_000_000))

    def run() -> Timed:
        n, start = next(number), now()
        with torch.inference_mode():
            model = load()
        _, painted = ksampler(model, make(n), seed=n)
        return now() - start, painted

    return run
