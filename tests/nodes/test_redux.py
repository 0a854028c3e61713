"""Redux against ComfyUI's StyleModelApply, through a server whose loaders take tiny models."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from painter.redux import new_redux, new_siglip, save_redux, save_siglip
from tests.companions import randomised
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, latent_of, model, prompt
from workflows.client import Client, RunError
from workflows.graph import Link
from workflows.server import Server

TOLERANCE = 1e-5
FILL, CANNY = "flux1-fill-dev.safetensors", "flux1-canny-dev.safetensors"
KONTEXT = "flux1-dev-kontext_fp8_scaled.safetensors"

SIGLIP, REDUX = "sigclip_vision_patch14_384.safetensors", "flux1-redux-dev.safetensors"


@pytest.fixture(scope="module")
def server(server: Client, models: Path) -> Client:
    """The server, with two pictures, and with models that don't fit the others."""
    save_siglip(models / "clip_vision" / "wide.safetensors", randomised(new_siglip(width=48)))
    save_redux(models / "style_models" / "wide.safetensors", randomised(new_redux(text_width=128)))
    for seed, (name, size) in enumerate({"wide.png": (96, 64), "tall.png": (48, 80)}.items()):
        torch.manual_seed(seed)
        pixels = (torch.rand(size[1] // 8, size[0] // 8, 3) * 255).byte().numpy()
        server.upload(Image.fromarray(pixels).resize(size), name)
    return server


def vision(add: GraphBuilder, file: str = SIGLIP) -> Link:
    return add("CLIPVisionLoader", clip_name=file)[0]


def style_model(add: GraphBuilder, file: str = REDUX) -> Link:
    return add("StyleModelLoader", style_model_name=file)[0]


def models_of(add: GraphBuilder) -> tuple[Link, Link]:
    return vision(add), style_model(add)


def stock(add: GraphBuilder, text: Link, pictures: list[str], strengths: list[float], kind: str, crop: str) -> Link:
    siglip, redux = models_of(add)
    for picture, strength in zip(pictures, strengths, strict=True):
        image = add("LoadImage", image=picture)[0]
        seen = add("CLIPVisionEncode", clip_vision=siglip, image=image, crop=crop)[0]
        text = add(
            "StyleModelApply", conditioning=text, style_model=redux, clip_vision_output=seen, strength=strength,
            strength_type=kind,
        )[0]  # fmt: skip
    return text


def ours(add: GraphBuilder, text: Link, pictures: list[str], strength=1.0, kind="multiply", **settings) -> Link:
    siglip, redux = models_of(add)
    images = {f"pictures.picture{i}": add("LoadImage", image=name)[0] for i, name in enumerate(pictures)}
    inputs = {"clip_vision": siglip, "strength": strength, "strength_type": kind, **images, **settings}
    return add("Flux1ReduxConditioning", conditioning=text, style_model=redux, **inputs)[0]


def painted(add: GraphBuilder, positive: Link, loader="UNETLoader", file="flux1-dev.safetensors", **settings) -> Link:
    """By ComfyUI's sampler, a batch of two."""
    clip, _ = encoders(add)
    latent = add("EmptySD3LatentImage", **{"width": 96, "height": 64, "batch_size": 2, **settings.pop("size", {})})[0]
    return ksampler(add, model(add, loader, file), positive, prompt(add, clip, ""), latent, **{"steps": 2, **settings})


def text_of(add: GraphBuilder) -> Link:
    return prompt(add, encoders(add)[0])


def run(running: Server, server: Client, graph) -> torch.Tensor:
    add = GraphBuilder()
    return latent_of(running, server, add, graph(add))


ONE, TWO = ["wide.png"], ["wide.png", "tall.png"]
CASES = {  # pictures, strength, weights, kind, sizing
    "scaled": (ONE, 0.3, "", "multiply", "stretch"),
    "by attention": (ONE, 0.3, "", "attn_bias", "crop"),
    "by attention, not weakened": (ONE, 1.0, "", "attn_bias", "stretch"),
    "two, scaled": (TWO, 2.0, "1, 0.25", "multiply", "crop"),
    "two, by attention": (TWO, 2.0, "0.25 0.1", "attn_bias", "stretch"),
}


@pytest.mark.parametrize("name", CASES)
def test_redux_is_comfyui_s_style_model_apply(name, running, server):
    """Several pictures are several StyleModelApply nodes in a row. On ComfyUI's own FLUX, at cfg 3."""
    pictures, strength, weights, kind, sizing = CASES[name]
    strengths = [strength * float(weight) for weight in weights.replace(",", " ").split()] or [strength]
    crop = {"stretch": "none", "crop": "center"}[sizing]
    latents = []
    for redux in (
        lambda add: ours(add, text_of(add), pictures, strength, kind, sizing=sizing, weights=weights),
        lambda add: stock(add, text_of(add), pictures, strengths, kind, crop),
    ):
        latents.append(run(running, server, lambda add, redux=redux: painted(add, redux(add), cfg=3.0)))
    assert difference(*latents) <= TOLERANCE


def test_redux_after_comfyui_s_own_is_comfyui_s_twice(running, server):
    """Its bias is kept, and made one over the new picture too."""
    latents = []
    for redux in (
        lambda add: ours(add, stock(add, text_of(add), ONE, [0.3], "attn_bias", "none"), ["tall.png"]),
        lambda add: stock(
            add, stock(add, text_of(add), ONE, [0.3], "attn_bias", "none"), ["tall.png"], [1.0], "multiply", "none"
        ),
    ):
        latents.append(run(running, server, lambda add, redux=redux: painted(add, redux(add))))
    assert difference(*latents) <= TOLERANCE


def test_pictures_and_strengths_change_what_is_painted(running, server):
    """Else the comparisons above would hold for pictures that nobody looks at."""
    latents = [
        run(running, server, lambda add, change=change: painted(add, change(add)))
        for change in (
            text_of,
            lambda add: ours(add, text_of(add), ONE),
            lambda add: ours(add, text_of(add), ["tall.png"]),
            lambda add: ours(add, text_of(add), ONE, sizing="crop"),
            lambda add: ours(add, text_of(add), ONE, 0.5),
            lambda add: ours(add, text_of(add), ONE, 0.5, "attn_bias"),
            lambda add: ours(add, text_of(add), ONE, prompt_strength=0.5),
            lambda add: ours(add, text_of(add), ONE, kind="attn_bias", prompt_strength=0.5),
        )
    ]
    for i, one in enumerate(latents):
        assert all(difference(one, other) > 1e-3 for other in latents[:i])


def test_encoded_pictures_are_as_good_as_pictures(running, server):
    def encoded(add: GraphBuilder) -> Link:
        siglip, redux = models_of(add)
        images = [add("LoadImage", image=name)[0] for name in ("wide.png", "tall.png")]
        seen = add("CLIPVisionEncode", clip_vision=siglip, image=images[0], crop="none")[0]
        return add(
            "Flux1ReduxConditioning", conditioning=text_of(add), style_model=redux, clip_vision=siglip, strength=1.0,
            strength_type="multiply", **{"pictures.picture0": seen, "pictures.picture1": images[1]},
        )[0]  # fmt: skip

    mine = run(running, server, lambda add: painted(add, encoded(add)))
    theirs = run(running, server, lambda add: painted(add, ours(add, text_of(add), TWO)))
    assert torch.equal(mine, theirs)


def with_reference(add: GraphBuilder, positive: Link) -> Link:
    image = add("LoadImage", image="tall.png")[0]
    return add(
        "Flux1KontextReference", conditioning=positive, vae=encoders(add)[1], sizing="own size",
        **{"images.image0": image},
    )[0]  # fmt: skip


def with_fill(add: GraphBuilder, positive: Link) -> Link:
    image, mask = (
        add("EmptyImage", width=96, height=64, batch_size=1, color=90)[0],
        add("SolidMask", value=1.0, width=96, height=64)[0],
    )
    return add("Flux1FillConditioning", conditioning=positive, vae=encoders(add)[1], image=image, mask=mask)[0]


def with_edges(add: GraphBuilder, positive: Link) -> Link:
    image = add("EmptyImage", width=96, height=64, batch_size=1, color=90)[0]
    return add("Flux1ControlConditioning", conditioning=positive, vae=encoders(add)[1], control_image=image)[0]


COMPANY = {
    "alone": (lambda add, positive: positive, "flux1-dev.safetensors"),
    "a reference": (with_reference, KONTEXT),
    "Fill and a reference": (lambda add, positive: with_reference(add, with_fill(add, positive)), FILL),
    "a control picture": (with_edges, CANNY),
}


@pytest.mark.parametrize("name", COMPANY)
def test_a_picture_that_nobody_attends_to_changes_nothing(name, running, server):
    """Strength 0 by attention: no text, picture or reference token sees the picture's. In whatever company, for a
    latent of whatever size, be its conditioning used before or after for another one."""
    company, file = COMPANY[name]

    def graph(add: GraphBuilder, redux: dict | None, size: dict[str, int]) -> Link:
        positive = ours(add, text_of(add), ONE, **redux) if redux else text_of(add)
        return painted(add, company(add, positive), "Flux1LoadModel", file, size=size)

    for size in ({}, {"width": 72, "height": 104}):
        without, unseen, seen = (
            run(running, server, partial(graph, redux=redux, size=size))
            for redux in (None, {"strength": 0.0, "kind": "attn_bias"}, {"strength": 0.5, "kind": "attn_bias"})
        )
        assert difference(unseen, without) <= 1e-4
        assert difference(seen, without) > 1e-3


REFUSED = {  # inputs of the node that are wrong, and words in the text
    "an image encoder that is not SigLIP": (
        lambda add: {"clip_vision": vision(add, "wide.safetensors")},
        ["SigLIP", "48"],
    ),
    "a style model of another width": (
        lambda add: {"style_model": style_model(add, "wide.safetensors")},
        ["128", "64"],
    ),
    "no image encoder": (lambda add: {"clip_vision": None}, ["clip_vision", "CLIPVisionLoader"]),
    "more weights than pictures": (lambda add: {"weights": "1, 0.5, 0.2"}, ["at most 2", "3"]),
    "weights that are no numbers": (lambda add: {"weights": "1; 0.5"}, ["weights", "1; 0.5"]),
    "a weight below zero": (lambda add: {"weights": "-1"}, ["weights", "-1"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_words(name, running, server):
    change, words = REFUSED[name]
    add = GraphBuilder()
    redux = ours(add, text_of(add), TWO)
    inputs = add.graph[redux[0]]["inputs"]
    inputs |= change(add)
    add.graph[redux[0]]["inputs"] = {key: value for key, value in inputs.items() if value is not None}
    with pytest.raises(RunError) as caught:
        latent_of(running, server, add, painted(add, redux))
    assert all(word in str(caught.value) for word in [*words, "Expected:", "Found:", "Fix:"]), caught.value
    assert (caught.value.status == 400) == (words[0] == "weights")  # known before anything runs
