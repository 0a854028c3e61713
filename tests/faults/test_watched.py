"""The server under watch while graphs run: which files it opens, what it writes, that it calls and starts nobody."""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, Faulty
from tests.faults.graphs import (
    CANNY,
    FILL,
    KONTEXT,
    check_finite,
    empty,
    load_image,
    load_mask,
    load_model,
    noise,
    paint,
    run,
    text_encode,
)
from tests.nodes.graphs import encoders
from workflows.client import Client
from workflows.graph import GraphBuilder

pytestmark = pytest.mark.usefixtures("unharmed")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
PROGRAM = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), ROOT)]
"""Where code lies: Python imports it when it is first needed."""
MEMORY = Path("/proc/meminfo"), Path("/proc/self/smaps").resolve()
"""ComfyUI looks how much is free, the pack what is mapped."""


def fill(add: GraphBuilder, conditioning, vae, image):
    return FILL, *add(
        "Flux1FillConditioning", conditioning=conditioning, vae=vae, image=image, mask=load_mask(add, "watched.png"),
        grow=2, feather=2,
    )[:2]  # fmt: skip


def kontext(add: GraphBuilder, conditioning, vae, image):
    images = {"images.image0": image}
    return KONTEXT, *add(
        "Flux1KontextReference", conditioning=conditioning, vae=vae, sizing="own size", **images
    )[:2]  # fmt: skip


def canny(add: GraphBuilder, conditioning, vae, image):
    edges = add("Flux1CannyEdges", image=image, low=50, high=200)[0]
    return CANNY, *add("Flux1ControlConditioning", conditioning=conditioning, vae=vae, control_image=edges)[:2]


def words(add: GraphBuilder, conditioning, vae, image):
    return "flux1-schnell.safetensors", conditioning, empty(add)


@pytest.mark.parametrize("graph", [fill, kontext, canny, words], ids=lambda graph: graph.__name__)
def test_a_graph_opens_models_and_pictures_and_writes_into_the_output_folder_alone(
    graph, faulty: Faulty, client: Client, checkout: Path
):
    client.upload(noise(64, 64), "watched.png")
    client.post("/free", {"unload_models": True, "free_memory": True})
    before = len(faulty.seen())
    add = GraphBuilder()
    clip, vae = encoders(add)
    file, conditioning, latent = graph(add, text_encode(add, clip), vae, load_image(add, "watched.png"))
    check_finite(run(client, add, paint(add, load_model(add, file), conditioning, latent, vae)))
    events = faulty.seen()[before:]

    home = faulty.server.home
    written = [home / "output", home / "temp"]
    data = [*written, home / "input", home / "custom_nodes", faulty.models]
    opened = [(Path(path).resolve(), int(flags)) for event, path, _, flags in events_of(events, "open")]
    assert any(path.is_relative_to(faulty.models) for path, _ in opened)
    assert any(path.is_relative_to(home / "output") for path, _ in opened)
    for path, flags in opened:
        places = written if flags & WRITING else [*data, *PROGRAM, checkout.resolve(), *MEMORY]
        assert any(path.is_relative_to(place) for place in places), (path, flags)
    for event, path, *_ in events:
        assert event not in CHANGES or any(Path(path).is_relative_to(place) for place in written), (event, path)
    calls = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")
    assert not [event for event in events if event[0].startswith(calls)]


def events_of(events: list[tuple[str, ...]], name: str) -> list[tuple[str, ...]]:
    """Those that name a path; others open what is open already, by its number."""
    return [event for event in events if event[0] == name and not event[1].isdigit()]
