"""Samplers and schedules: bad settings are refused, NaN is found at its step, odd sizes are what they say."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.faults.running import (
    DEV,
    OURS,
    Place,
    assert_same,
    events,
    faulty_model,
    latent,
    refused,
    sampled,
)
from tests.nodes.graphs import encoders, ksampler, model, prompt
from workflows.client import Client
from workflows.graph import GraphBuilder, Link
from workflows.server import Server


@pytest.fixture(scope="module")
def reference(running: Server, server: Client) -> Place:
    return Place(running, server)


@pytest.fixture(scope="module")
def place(faulty_running: Server) -> Place:
    return Place(faulty_running, Client(faulty_running.address))


@pytest.fixture(autouse=True)
def and_then_it_paints_as_ever(place: Place, reference: Place):
    yield
    assert_same(place, reference)


def ours(**settings: Any) -> Callable[[GraphBuilder], Link]:
    return lambda add: sampled(add, **settings)


def stock(
    change: Callable = lambda add, flux: flux, size: int = 64, empty: bool = True, file: str = DEV, **settings: Any
):
    """ComfyUI's KSampler on our MODEL."""

    def graph(add: GraphBuilder) -> Link:
        clip, _ = encoders(add)
        samples = add("EmptyLatentImage", width=size, height=size, batch_size=1)[0]
        if not empty:
            samples = four_channels(add)
        flux = change(add, model(add, "Flux1LoadModel", file))
        return ksampler(add, flux, prompt(add, clip), prompt(add, clip, ""), samples, **settings)

    return graph


def four_channels(add: GraphBuilder) -> Link:
    """A latent of Stable Diffusion's kind that is not empty."""
    add("EmptyLatentImage", width=64, height=64, batch_size=1)
    raise NotImplementedError


def built(graph: Callable[[GraphBuilder], Link]) -> dict[str, Any]:
    add = GraphBuilder()
    add("SaveLatent", samples=graph(add), filename_prefix="test/latent")
    return add.graph


def test_first(place, reference):
    refused(place, built(lambda add: sampled(add, DEV, faulty_model(2, "nan"), seed=7)), "nan", "step 2", *OURS)
