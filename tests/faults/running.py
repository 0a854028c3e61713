"""Runs for the faults that show while a server is at work: one small picture in every variety, and what it must be."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image, ImageStat
from safetensors.torch import load_file, save_file

from tests.nodes.graphs import encoders
from workflows.client import Client, RunError
from workflows.connection import Connection
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
    add: GraphBuilder,
    file: str = DEV,
    *changes: Change,
    seed: int | None = None,
    compute: str = "auto",
    **settings: Any,
) -> Link:
    """The latent of a small picture by our nodes, by default of a fresh seed; `changes` go between loader and sampler."""
    clip, _ = encoders(add)
    flux = add("Flux1LoadModel", model_name=file, weight_dtype="default", variant="auto", compute_dtype=compute)[0]
    for change in changes:
        flux = change(add, flux)
    text = add("Flux1TextEncode", clip=clip, prompt="a lake below mountains", guidance=3.5)[0]
    latent = add("Flux1EmptyLatent", preset="custom", width=64, height=48, batch_size=1)[0]
    inputs = {"steps": 3, "strength": 1.0, "latent": latent, **settings}
    return add("Flux1Sampler", model=flux, positive=text, seed=next(FRESH) if seed is None else seed, **inputs)[0]


def faulty_model(step: int, fault: str) -> Change:
    return lambda add, flux: add("FaultyModel", model=flux, step=step, fault=fault)[0]


SLOW = faulty_model(0, "slow")
"""At each step, so that a run lasts long enough to be interrupted."""


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


def written(place: Place, samples: torch.Tensor) -> str:
    """A latent in the server's input folder, for LoadLatent; returns its name."""
    name = f"{next(FRESH)}.latent"
    save_file(
        {"latent_tensor": samples, "latent_format_version_0": torch.tensor([])}, place.running.home / "input" / name
    )
    return name


def graph_of(make: Callable[[GraphBuilder], Link]) -> Graph:
    """A graph that ends in the latent that `make` adds."""
    add = GraphBuilder()
    add("SaveLatent", samples=make(add), filename_prefix="test/latent")
    return add.graph


def picture_of(make: Callable[[GraphBuilder], Link], prefix: str = "test/picture") -> Graph:
    """A graph that ends in the picture in the latent that `make` adds."""
    add = GraphBuilder()
    latent, (_, vae) = make(add), encoders(add)
    add("SaveImage", images=add("Flux1DecodeImage", latent=latent, vae=vae)[0], filename_prefix=prefix)
    return add.graph


def finite(image: Image.Image) -> bool:
    """Neither black nor white nor of one colour."""
    stat = ImageStat.Stat(image.convert("L"))
    return 0 < stat.mean[0] < 255 and stat.stddev[0] > 0


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

    async def follow(server: Connection) -> list[dict]:
        heard, name, prompt_id = [], uuid.uuid4().hex, str(uuid.uuid4())
        async with server.session.ws_connect(f"/ws?clientId={name}", max_msg_size=0) as socket:
            await server.queue(graph, name, prompt_id)
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

    return place.client.wait(follow)


def interrupted(place: Place, graph: Graph, before: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """All that the server says of a run that is interrupted once it samples; `before` that something is called."""
    asked: list[bool] = []

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and not asked:
            asked.append(True)
            before()
            place.client.post("/interrupt")

    return events(place, graph, interrupt)
