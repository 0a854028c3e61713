"""What a server keeps in memory does not grow with its runs."""

import itertools

import psutil
import pytest
from PIL import Image

from tests.faults.running import DEV, FILL, FP8, FRESH, Place, lora
from tests.faults.test_lora import STYLE, loras  # noqa: F401
from tests.nodes.graphs import encoders
from workflows.graph import GraphBuilder

pytestmark = pytest.mark.usefixtures("alive", "loras")


def painted(add: GraphBuilder, kind: str) -> None:
    """A picture of 64 x 64 in one step, as Fill, Kontext or a LoRA on dev paint it."""
    clip, vae = encoders(add)
    file = {"fill": FILL, "kontext": FP8, "lora": DEV}[kind]
    flux = add("Flux1LoadModel", model_name=file, weight_dtype="default", variant="auto")[0]
    text = add("Flux1TextEncode", clip=clip, prompt="a lake below mountains", guidance=3.5)[0]
    image, mask = add("LoadImage", image="memory.png")[:2]
    if kind == "fill":
        text, latent = add("Flux1FillConditioning", conditioning=text, vae=vae, image=image, mask=mask)[:2]
    elif kind == "kontext":
        inputs = {"conditioning": text, "vae": vae, "images.image0": image, "sizing": "own size"}
        text, latent = add("Flux1KontextReference", **inputs)[:2]
    else:
        flux = lora(STYLE)(add, flux)
        latent = add("Flux1EmptyLatent", preset="custom", width=64, height=64, batch_size=1)[0]
    sampler = add(
        "Flux1Sampler", model=flux, positive=text, latent=latent, seed=next(FRESH), steps=1, strength=1.0
    )[0]  # fmt: skip
    add("PreviewImage", images=add("Flux1DecodeImage", latent=sampler, vae=vae)[0])


def test_Q20_two_hundred_runs_leave_memory_where_twenty_left_it(place: Place):
    picture = Image.effect_noise((64, 64), 80).convert("RGBA")
    picture.paste((0, 0, 0, 0), (16, 16, 48, 48))
    place.client.upload(picture, "memory.png")
    server = psutil.Process(place.running.process.pid)
    resident = []
    for _, kind in zip(range(200), itertools.cycle(("fill", "kontext", "lora")), strict=False):
        add = GraphBuilder()
        painted(add, kind)
        assert place.client.run(add.graph).images
        resident.append(server.memory_info().rss)
    assert resident[-1] <= resident[19] * 1.1
