"""Outpainting: the padding is ComfyUI's, any size is painted, adding nothing is refused before anything runs."""

import pytest
import torch
from PIL import Image

from tests.nodes.graphs import GraphBuilder, encoders, model, prompt
from workflows.client import Client, RunError

FILL = "flux1-fill-dev.safetensors"


def test_without_a_feather_it_is_comfyui_s_padding(pack):
    from flux1.nodes.fill import Flux1PadForOutpaint

    import nodes

    picture = torch.rand(2, 57, 71, 3)
    ours = Flux1PadForOutpaint.execute(picture, 8, 16, 3, 0, feather=0).args
    theirs = nodes.ImagePadForOutpaint().expand_image(picture, 8, 16, 3, 0, feathering=0)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def outpainted(**room: int) -> dict:
    """A picture of 71 x 57 pixels with room around it, painted by Fill."""
    add = GraphBuilder()
    clip, vae = encoders(add)
    picture = add("LoadImage", image="to_extend.png")[0]
    sides = {"left": 0, "top": 0, "right": 0, "bottom": 0} | room
    larger, mask = add("Flux1PadForOutpaint", image=picture, **sides)[:2]
    positive, latent = add(
        "Flux1FillConditioning", conditioning=prompt(add, clip), vae=vae, image=larger, mask=mask
    )[:2]  # fmt: skip
    flux = model(add, "Flux1LoadModel", FILL)
    sampled = add("Flux1Sampler", model=flux, positive=positive, latent=latent, seed=1, steps=2, strength=1.0)[0]
    add("SaveImage", images=add("Flux1DecodeImage", latent=sampled, vae=vae)[0], filename_prefix="outpainted")
    return add.graph


@pytest.fixture(scope="module", autouse=True)
def picture(server: Client) -> None:
    server.upload(Image.effect_noise((71, 57), 80).convert("RGB"), "to_extend.png")


@pytest.mark.parametrize("room", [{"left": 9}, {"top": 16, "right": 40, "bottom": 1}])
def test_the_result_has_the_size_asked_for_whatever_it_is(server: Client, room: dict[str, int]):
    (image,) = server.run(outpainted(**room)).images
    width, height = (sum(room.get(side, 0) for side in sides) for sides in (("left", "right"), ("top", "bottom")))
    assert image.size == (71 + width, 57 + height)
    assert len(image.getcolors(image.width * image.height)) > 100


@pytest.mark.parametrize(("room", "words"), [({}, "0 pixels"), ({"left": -5}, "left -5"), ({"top": 5000}, "top 5000")])
def test_room_that_is_none_is_refused_before_anything_runs(server: Client, room: dict[str, int], words: str):
    with pytest.raises(RunError) as refusal:
        server.run(outpainted(**room))
    assert refusal.value.status == 400
    (entry,) = (entry for entry in refusal.value.node_errors.values() if entry["errors"])
    assert entry["class_type"] == "Flux1PadForOutpaint"
    details = entry["errors"][0]["details"]
    assert all(word in details for word in (words, "Expected:", "Found:", "Fix:"))
