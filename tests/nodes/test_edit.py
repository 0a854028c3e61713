"""Prepare Edit and Finish Edit on a real server: the saved picture is the uploaded one outside the mask, also in a chain."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data

from tests.nodes.graphs import GraphBuilder, encoders, model, prompt
from workflows.client import Client, RunError
from workflows.graph import Link

PICTURE = Image.fromarray(data.coffee()[60:301, 100:421])


@pytest.fixture(scope="module", autouse=True)
def pictures(server: Client) -> None:
    for number in range(3):
        both, hole = PICTURE.copy(), Image.new("L", PICTURE.size, 255)
        ImageDraw.Draw(hole).ellipse((60 + 70 * number, 80, 120 + 70 * number, 150), fill=0)
        both.putalpha(hole)
        server.upload(both, f"edit_{number}.png")
    server.upload(PICTURE, "whole.png")
    server.upload(Image.new("RGB", (50, 40), "white"), "small.png")


def outside(*numbers: int) -> np.ndarray:
    """Where none of these masks is."""
    free = Image.new("L", PICTURE.size, 255)
    for number in numbers:
        ImageDraw.Draw(free).ellipse((60 + 70 * number, 80, 120 + 70 * number, 150), fill=0)
    return np.asarray(free) == 255


def filled(add: GraphBuilder, picture: Link, mask: Link, region: Link | None = None, **settings) -> list[Link]:
    """Prepared, painted by Fill, finished."""
    clip, vae = encoders(add)
    chain = {"region": region} if region else {}
    image, white, cut = add(
        "Flux1PrepareEdit", image=picture, mask=mask, area="around mask", sizing="megapixels", megapixels=0.02, **chain
    )[:3]
    positive, latent = add(
        "Flux1FillConditioning", conditioning=prompt(add, clip), vae=vae, image=image, mask=white
    )[:2]  # fmt: skip
    flux = model(add, "Flux1LoadModel", "flux1-fill-dev.safetensors")
    sampled = add("Flux1Sampler", model=flux, positive=positive, latent=latent, seed=1, steps=2, strength=1.0)[0]
    finish = {"colour": "local", "blend": "feather", "blend_width": 8} | settings
    return add("Flux1FinishEdit", image=add("Flux1DecodeImage", latent=sampled, vae=vae)[0], region=cut, **finish)


@pytest.mark.parametrize("blend", ["feather", "multi-band", "gradient"])
def test_the_saved_picture_is_the_uploaded_one_outside_the_mask(server: Client, blend: str) -> None:
    add = GraphBuilder()
    image, _, report, _ = filled(add, *add("LoadImage", image="edit_0.png")[:2], blend=blend)[:4]
    add("SaveImage", images=image, filename_prefix="edit")
    shown = add("PreviewAny", source=report)[0][0]
    done = server.run(add.graph)
    (saved,) = done.images
    before, after = np.asarray(PICTURE), np.asarray(saved.convert("RGB"))
    assert after.shape == before.shape and (after[outside(0)] == before[outside(0)]).all()
    assert (after != before).any()
    assert "of pixels changed" in done.outputs[shown]["text"][0]
    assert any("of pixels changed" in str(output.get("text")) for key, output in done.outputs.items() if key != shown)


def test_a_chain_of_edits_changes_nothing_outside_its_masks(server: Client) -> None:
    add = GraphBuilder()
    image, _, _, region = filled(add, *add("LoadImage", image="edit_0.png")[:2])[:4]
    for number in (1, 2):
        image, _, _, region = filled(add, image, add("LoadImage", image=f"edit_{number}.png")[1], region)[:4]
    add("SaveImage", images=image, filename_prefix="edit_chain")
    (saved,) = server.run(add.graph).images
    before, after = np.asarray(PICTURE), np.asarray(saved.convert("RGB"))
    free = outside(0, 1, 2)
    assert (after[free] == before[free]).all()
    assert all((after != before).any(-1)[~outside(number)].mean() > 0.5 for number in range(3))


REFUSED = {
    "mask of another size": ("whole.png", "small.png", ["321 x 241", "50 x 40"]),
    "picture without a mask": ("whole.png", "whole.png", ["empty", "0 pixels"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(server: Client, case: str) -> None:
    picture, mask, words = REFUSED[case]
    add = GraphBuilder()
    white = (
        add("LoadImageMask", image=mask, channel="red")[0] if mask != picture else add("LoadImage", image=mask)[1]
    )  # fmt: skip
    add("SaveImage", images=filled(add, add("LoadImage", image=picture)[0], white)[0], filename_prefix="refused")
    with pytest.raises(RunError) as refusal:
        server.run(add.graph)
    text = refusal.value.answer["exception_message"]
    assert refusal.value.node_type == "Flux1PrepareEdit"
    assert all(word in text for word in [*words, "Expected:", "Found:", "Fix:"]), text
