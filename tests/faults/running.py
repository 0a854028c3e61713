"""Runs for the faults that show while a server is at work: one small picture in every variety, and what it must be."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.nodes.graphs import encoders
from workflows.client import Client, RunError
from workflows.graph import Graph, GraphBuilder, Link
from workflows.server import Server

DEV, FILL, FP8 = "flux1-dev.safetensors", "flux1-fill-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"
FRESH = itertools.count(1_000)
"""Seeds that no server has seen: what it remembers of earlier runs can't be taken for a new one."""

Change = Callable[[GraphBuilder, Link], Link]
"""Adds to a MODEL: (builder, MODEL) to MODEL."""


@dataclass(frozen=True)
class Place:
    """A server and a client of it."""

    running: Server
    client: Client


def sampled(
    add: GraphBuilder, file: str = DEV, *changes: Change, seed: int = 1, compute: str = "auto", **settings: Any
) -> Link:
    """The latent of a small picture by our nodes; `changes` go between loader and sampler."""
    clip, _ = encoders(add)
    flux = add("Flux1LoadModel", model_name=file, weight_dtype="default", variant="auto", compute_dtype=compute)[0]
    for change in changes:
        flux = change(add, flux)
    text = add("Flux1TextEncode", clip=clip, prompt="a lake below mountains", guidance=3.5)[0]
    latent = add("Flux1EmptyLatent", preset="custom", width=64, height=48, batch_size=1)[0]
    inputs = {"steps": 3, "strength": 1.0, "latent": latent, **settings}
    return add("Flux1Sampler", model=flux, positive=text, seed=seed, **inputs)[0]


def faulty_model(step: int, fault: str) -> Change:
    return lambda add, flux: add("FaultyModel", model=flux, step=step, fault=fault)[0]


def lora(name: str, strength: float = 1.0) -> Change:
    how = {"strength": "custom", "strength.value": strength}
    return lambda add, flux: add("Flux1LoadLora", model=flux, lora_name=name, **how)[0]


def latent(place: Place, *model: Any, **settings: Any) -> torch.Tensor:
    """Every bit of `sampled`'s latent, whose sampler has really run."""
    add = GraphBuilder()
    painted = sampled(add, *model, **settings)
    saver = add("SaveLatent", samples=painted, filename_prefix="test/latent")[0][0]
    result = place.client.run(add.graph)
    assert painted[0] not in result.cached
    (saved,) = result.outputs[saver]["latents"]
    return load_file(place.running.output / saved["subfolder"] / saved["filename"])["latent_tensor"]


def assert_same(place: Place, reference: Place, *model: Any, **settings: Any) -> None:
    """After whatever happened to it, a server paints what another one does, bit for bit."""
    seed = next(FRESH)
    assert torch.equal(*(latent(each, *model, seed=seed, **settings) for each in (reference, place)))


def refused(place: Place, graph: Graph, *words: str, status: int | None = None) -> RunError:
    """The server's refusal, whose text has all of these words; `status` 400 before anything runs."""
    with pytest.raises(RunError) as caught:
        place.client.run(graph)
    assert caught.value.status == status, caught.value
    assert all(word.lower() in said(caught.value).lower() for word in words), said(caught.value)
    return caught.value


def said(error: RunError) -> str:
    """What the nodes say, without the client's own words."""
    details = [each["details"] for node in error.node_errors.values() for each in node["errors"]]
    return " ".join([error.answer.get("exception_message", ""), *details])


OURS = ("Expected:", "Found:", "Fix:")


def events(place: Place, graph: Graph, on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> list[dict]:
    """All that the server says of a run while it goes on, up to its end, however it ends."""

    async def follow() -> list[dict]:
        client, heard = place.client, []
        name = uuid.uuid4().hex
        async with client.session() as session, session.ws_connect(f"/ws?clientId={name}", max_msg_size=0) as socket:
            prompt_id = (await client._queue(graph, name))["prompt_id"]
            async for message in socket:
                if message.type.name != "TEXT":
                    continue
                event = message.json()
                if event["data"].get("prompt_id", prompt_id) != prompt_id:
                    continue
                heard.append(event)
                await asyncio.to_thread(on_event, event)
                ended = event["type"] in ("execution_error", "execution_interrupted", "execution_success")
                if ended:
                    return heard
        raise AssertionError("the connection ended")

    return place.client.wait(follow())
