"""Masks and pictures that don't fit each other or the model: refused in words, and everything else painted."""

import numpy as np
import pytest
from PIL import Image

from tests.faults.conftest import Faulty
from tests.faults.graphs import (
    DEV,
    FILL,
    Painting,
    alike,
    check_finite,
    load_image,
    load_mask,
    load_model,
    noise,
    paint,
    pixels,
    refused_while_running,
    run,
    saved,
    text_encode,
)
from tests.nodes.graphs import encoders
from workflows.client import Client
from workflows.graph import GraphBuilder, Link

pytestmark = pytest.mark.usefixtures("unharmed")
BASE = FILL


def rectangle(width: int, height: int, *box: int) -> Image.Image:
    """A mask that is white in the box (left, top, right, bottom)."""
    mask = Image.new("RGB", (width, height))
    mask.paste((255, 255, 255), box)
    return mask


PICTURES = {
    "64.png": noise(64, 64),
    "71.png": noise(71, 57),
    "1.png": noise(1, 1),
    "8.png": noise(8, 8),
    "15.png": noise(15, 200),
    "64 rgba.png": noise(64, 64, "RGBA"),
    "64 inside.png": rectangle(64, 64, 16, 20, 45, 50),
    "64 empty.png": rectangle(64, 64, 0, 0, 0, 0),
    "64 full.png": rectangle(64, 64, 0, 0, 64, 64),
    "64 dot.png": rectangle(64, 64, 33, 21, 34, 22),
    "64 other dot.png": rectangle(64, 64, 38, 21, 39, 22),
    "71 full.png": rectangle(71, 57, 0, 0, 71, 57),
    "71 inside.png": rectangle(71, 57, 16, 20, 45, 50),
    "32 x 48 full.png": rectangle(32, 48, 0, 0, 32, 48),
    "1 full.png": rectangle(1, 1, 0, 0, 1, 1),
    "8 full.png": rectangle(8, 8, 0, 0, 8, 8),
    "15 full.png": rectangle(15, 200, 0, 0, 15, 200),
}


@pytest.fixture(scope="module", autouse=True)
def uploaded(client: Client) -> None:
    for name, picture in PICTURES.items():
        client.upload(picture, name)


def filled(add: GraphBuilder, image: Link, mask: Link, file: str = FILL, seed: int = 1, **settings: object) -> Painting:
    clip, vae = encoders(add)
    conditioning, latent = add(
        "Flux1FillConditioning", conditioning=text_encode(add, clip), vae=vae, image=image, mask=mask, **settings
    )[:2]
    return paint(add, load_model(add, file), conditioning, latent, vae, seed)


def from_files(
    add: GraphBuilder, image: str, mask: str, file: str = FILL, seed: int = 1, **settings: object
) -> Painting:
    return filled(add, load_image(add, image), load_mask(add, mask), file, seed, **settings)


def painted(client: Client, image: str, mask: str, **settings: object) -> np.ndarray:
    add = GraphBuilder()
    return run(client, add, from_files(add, image, mask, **settings))


def twice(add: GraphBuilder, image: Link) -> Link:
    return add("RepeatImageBatch", image=image, amount=2)[0]


def test_f01_outside_the_mask_the_composed_picture_is_the_one_given(client: Client):
    add = GraphBuilder()
    image, mask = load_image(add, "71.png"), load_mask(add, "71 inside.png")
    painting = filled(add, image, mask)
    whole = add.graph[painting.saver]["inputs"]["images"]
    composed = saved(
        add,
        add("ImageCompositeMasked", destination=image, source=whole, x=0, y=0, resize_source=False, mask=mask)[0],
    )
    (found,) = pixels(client.run(add.graph), composed)
    given, outside = np.asarray(PICTURES["71.png"]), np.asarray(PICTURES["71 inside.png"])[..., 0] == 0
    assert abs(found.astype(int) - given)[outside].max() <= 1
    assert abs(found.astype(int) - given)[~outside].mean() > 5


def test_f02_f14_an_empty_mask_is_refused(client: Client):
    for image in ("64.png", "71.png"):  # LoadImage's mask of a picture without alpha is 64 x 64 whatever its size
        add = GraphBuilder()
        loaded = add("LoadImage", image=image)
        filled(add, loaded[0], loaded[1])
        refused_while_running(client, add, "Flux1FillConditioning", "empty", "0 pixels")
    add = GraphBuilder()
    from_files(add, "64.png", "64 empty.png")
    refused_while_running(client, add, "Flux1FillConditioning", "empty", "0 pixels")


def test_f03_a_full_mask_is_painted(client: Client):
    check_finite(painted(client, "64.png", "64 full.png"))


def test_f04_a_mask_of_one_pixel_reaches_the_model(client: Client):
    """Also where in its latent cell the pixel is."""
    assert not alike(painted(client, "64.png", "64 dot.png"), painted(client, "64.png", "64 other dot.png"))


def test_f05_a_mask_of_another_size_is_refused(client: Client):
    add = GraphBuilder()
    from_files(add, "64.png", "32 x 48 full.png")
    refused_while_running(client, add, "Flux1FillConditioning", "64 x 64", "32 x 48")


def test_f07_a_picture_comes_back_in_its_size(client: Client):
    assert painted(client, "71.png", "71 full.png").shape == (1, 57, 71, 3)


@pytest.mark.parametrize(("name", "size"), [("1", "1 x 1"), ("8", "8 x 8"), ("15", "15 x 200")])
def test_f08_a_picture_smaller_than_a_token_is_refused(name, size, client: Client):
    add = GraphBuilder()
    from_files(add, f"{name}.png", f"{name} full.png")
    refused_while_running(client, add, "Flux1FillConditioning", "16", size)


@pytest.mark.parametrize(("images", "masks"), [(1, 2), (2, 1), (2, 2)])
def test_f09_f11_pictures_and_masks_are_matched(images, masks, client: Client):
    add = GraphBuilder()
    image, mask = load_image(add, "64.png"), load_image(add, "64 inside.png")
    if images == 2:
        image = twice(add, image)
    if masks == 2:
        mask = add("ImageBatch", image1=mask, image2=load_image(add, "64 full.png"))[0]
    both = run(client, add, filled(add, image, add("ImageToMask", image=mask, channel="red")[0]))
    assert len(both) == 2
    check_finite(both)


def test_f09_batches_that_don_t_match_are_refused(client: Client):
    add = GraphBuilder()
    image = add("RepeatImageBatch", image=load_image(add, "64.png"), amount=3)[0]
    mask = add("ImageToMask", image=twice(add, load_image(add, "64 inside.png")), channel="red")[0]
    filled(add, image, mask)
    refused_while_running(client, add, "Flux1FillConditioning", "batch", "3", "2")


def test_f12_alpha_is_not_seen(client: Client):
    add = GraphBuilder()
    with_alpha = add("JoinImageWithAlpha", image=load_image(add, "64.png"), alpha=load_mask(add, "64 inside.png"))[0]
    ours = run(client, add, filled(add, with_alpha, load_mask(add, "64 inside.png"), seed=12))
    client.post("/free", {"free_memory": True})
    assert alike(ours, painted(client, "64.png", "64 inside.png", seed=12))


def test_f16_another_model_is_refused(client: Client):
    add = GraphBuilder()
    from_files(add, "64.png", "64 inside.png", DEV)
    refused_while_running(client, add, "Flux1Sampler", "fill model", "in_channels")


@pytest.mark.parametrize("settings", [{}, {"grow": 3, "feather": 3, "noise_mask": True}], ids=["plain", "changed"])
def test_f17_picture_and_mask_are_left_as_they_were(settings, faulty: Faulty, client: Client):
    """They are looked at after the run, in the server's memory."""
    add = GraphBuilder()
    image, mask = load_image(add, "71.png"), load_mask(add, "71 inside.png")
    from_files_painted = filled(add, image, mask, seed=17, **settings)
    run(client, add, from_files_painted)
    savers = [saved(add, image), saved(add, add("MaskToImage", mask=mask)[0])]
    result = client.run(add.graph)
    assert {image[0], mask[0]} <= result.cached
    for saver, name in zip(savers, ("71.png", "71 inside.png"), strict=True):
        assert alike(pixels(result, saver)[0], np.asarray(PICTURES[name]))


def test_f20_a_noise_mask_makes_a_difference(client: Client):
    with_mask, without = (painted(client, "64.png", "64 inside.png", noise_mask=value) for value in (True, False))
    check_finite(with_mask)
    check_finite(without)
    assert not alike(with_mask, without)
