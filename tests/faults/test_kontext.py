"""References of every size, number and kind: painted after or refused in words."""

import numpy as np
import pytest

from tests.faults.graphs import (
    KONTEXT,
    Painting,
    alike,
    check_finite,
    check_words,
    empty,
    load_image,
    load_model,
    noise,
    paint,
    pixels,
    refusal,
    refused_while_running,
    said_by,
    text_encode,
)
from tests.nodes.graphs import encoders, model
from workflows.client import Client
from workflows.graph import GraphBuilder

pytestmark = pytest.mark.usefixtures("unharmed")
BASE = KONTEXT
SIZES = {"a": (64, 64), "b": (96, 48), "odd": (71, 57), "wide": (640, 16), "high": (16, 640), "narrow": (640, 8)}


@pytest.fixture(scope="module", autouse=True)
def uploaded(client: Client) -> None:
    for number, (name, size) in enumerate(SIZES.items()):
        client.upload(noise(*size, seed=number), f"{name}.png")


def edited(add: GraphBuilder, *names: str, batch: int = 0, seed: int = 1) -> tuple[Painting, str]:
    """A painting after references at their own sizes, and the node that shows them.

    Of a `batch` it starts from empty latents, without one from the first reference.
    """
    clip, vae = encoders(add)
    images = {f"images.image{number}": load_image(add, f"{name}.png") for number, name in enumerate(names)}
    conditioning, latent = add(
        "Flux1KontextReference", conditioning=text_encode(add, clip), vae=vae, sizing="own size", **images
    )[:2]
    latent = empty(add, batch) if batch else latent
    return paint(add, load_model(add, KONTEXT), conditioning, latent, vae, seed), conditioning[0]


def painted(client: Client, *names: str, **settings: int) -> tuple[np.ndarray, str]:
    add = GraphBuilder()
    painting, shower = edited(add, *names, **settings)
    result = client.run(add.graph)
    assert painting.sampler not in result.cached
    return pixels(result, painting.saver), said_by(result, shower)


def test_k01_a_reference_of_any_size_is_shown_at_a_size_that_is_stated(client: Client):
    picture, said = painted(client, "odd")
    check_finite(picture)
    assert picture.shape == (1, 64, 64, 3)
    check_words(said, "64 x 64", "16 tokens")


def test_k02_without_a_picture_nothing_is_queued(client: Client):
    add = GraphBuilder()
    edited(add)
    error = refusal(client, add)
    assert error.status == 400
    check_words(str(error), "Flux1KontextReference.*required.*image0")


def test_k03_a_reference_of_another_model_is_refused(client: Client):
    add = GraphBuilder()
    clip, vae = encoders(add)
    of_sd = add("EmptyLatentImage", width=64, height=64, batch_size=1)[0]
    conditioning = add("ReferenceLatent", conditioning=text_encode(add, clip), latent=of_sd)[0]
    paint(add, load_model(add, KONTEXT), conditioning, empty(add), vae)
    refused_while_running(client, add, "Flux1Sampler", "16 channels", r"\b4\b")


def test_k04_a_second_reference_of_another_size_counts(client: Client):
    (one, _), (same, _), (two, said) = (painted(client, *names, seed=4) for names in ("a", "aa", "ab"))
    check_finite(two)
    check_words(said, "64 x 64, 96 x 48", r"16 \+ 18 tokens")
    assert one.shape == two.shape == same.shape
    assert not alike(one, two) and not alike(same, two)


def test_k06_one_reference_is_enough_for_a_batch(client: Client):
    (alone, _), (both, _) = painted(client, "a", batch=1, seed=6), painted(client, "a", batch=2, seed=6)
    assert len(both) == 2
    assert abs(both[:1].astype(int) - alone).max() <= 1
    assert not alike(both[:1], both[1:])


@pytest.mark.parametrize("name", ["wide", "high"])
def test_k08_a_reference_one_token_wide_is_shown(name, client: Client):
    picture, said = painted(client, name)
    check_finite(picture)
    check_words(said, "40 tokens")


def test_k08_a_narrower_one_is_refused(client: Client):
    add = GraphBuilder()
    edited(add, "narrow")
    refused_while_running(client, add, "Flux1KontextReference", "16", "640 x 8")


def test_k10_six_references_are_counted(client: Client):
    picture, said = painted(client, *"ababab")
    check_finite(picture)
    check_words(said, "6 reference", r"16 \+ 18 \+ 16 \+ 18 \+ 16 \+ 18 tokens")


def test_k11_the_order_of_references_counts(client: Client):
    """The first one is the picture to edit; beside an empty latent the order is that of their positions."""
    (first, _), (second, _) = (painted(client, *names, batch=1, seed=11) for names in ("ab", "ba"))
    assert not alike(first, second)


def test_weights_that_a_model_can_t_take_are_refused(client: Client):
    """ComfyUI's own MODEL would paint as if they were not there; without weights it paints."""
    for loader, weights, fits in (
        ("UNETLoader", "0.5", False),
        ("UNETLoader", "", True),
        ("Flux1LoadModel", "0.5", True),
    ):
        add = GraphBuilder()
        clip, vae = encoders(add)
        conditioning, latent = add(
            "Flux1KontextReference", conditioning=text_encode(add, clip), vae=vae, sizing="own size", weights=weights,
            **{"images.image0": load_image(add, "a.png")},
        )[:2]  # fmt: skip
        painting = paint(add, model(add, loader, KONTEXT), conditioning, latent, vae)
        if fits:
            check_finite(pixels(client.run(add.graph), painting.saver))
        else:
            refused_while_running(client, add, "Flux1Sampler", "weigh", "Flux1LoadModel")
