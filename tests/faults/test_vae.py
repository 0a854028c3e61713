"""The autoencoder: NaN, another model's file, and too little memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.faults.running import FRESH, OURS, Place, picture_of, refused, sampled
from tests.nodes.graphs import encoders
from workflows.graph import Graph, GraphBuilder

pytestmark = pytest.mark.usefixtures("alive")

NAN, WITH_NAN = "ae with nan.safetensors", "decoder.mid.block_1.conv1.weight"


def decoded(
    seed: int, decoder: str = "Flux1DecodeImage", vae: str = "ae.safetensors", times: int | None = None
) -> Graph:
    """A picture whose decoding runs out of memory so many times; None: by the VAE as it is."""
    add = GraphBuilder()
    loaded = add("Flux1LoadVAE", vae_name=vae)[0]
    if times is not None:
        loaded = add("FaultyVae", vae=loaded, times=times)[0]
    name = "latent" if decoder == "Flux1DecodeImage" else "samples"
    image = add(decoder, vae=loaded, **{name: sampled(add, seed=seed)})[0]
    add("SaveImage", images=image, filename_prefix="test/picture")
    return add.graph


@pytest.mark.parametrize("decoder", ["Flux1DecodeImage", "VAEDecode"])
def test_V01_a_vae_with_nan_is_refused_before_anybody_decodes(place: Place, models, decoder):
    weights = load_file(models / "vae" / "ae.safetensors")
    weights[WITH_NAN][0, 0, 0, 0] = float("nan")
    save_file(weights, models / "vae" / NAN, {"format": "pt", "flux1.norm_groups": "8"})
    error = refused(place, decoded(next(FRESH), decoder, NAN), "vae", "nan", NAN, WITH_NAN, *OURS)
    assert error.node_type == "Flux1LoadVAE"


def pixels(place: Place, graph: Graph) -> torch.Tensor:
    (image,) = place.client.run(graph).images
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()


@pytest.mark.parametrize("decoder", ["Flux1DecodeImage", "VAEDecode"])
def test_V02_out_of_memory_once_is_decoded_in_tiles(place: Place, reference: Place, decoder):
    seed = next(FRESH)
    whole, tiled = pixels(reference, decoded(seed, decoder)), pixels(place, decoded(seed, decoder, times=1))
    assert 10 * torch.log10(255**2 / (whole - tiled).square().mean()) > 40


@pytest.mark.parametrize("decoder", ["Flux1DecodeImage", "VAEDecode"])
def test_V03_out_of_memory_for_good_keeps_its_kind(place: Place, decoder):
    error = refused(place, decoded(next(FRESH), decoder, times=100), "injected")
    assert error.answer["exception_type"] == "torch.OutOfMemoryError" and error.node_type == decoder


def test_V06_the_vae_that_is_none_is_not_in_our_list(place: Place):
    refused(place, decoded(next(FRESH), vae="pixel_space"), "vae", "not in list", *OURS, status=400)


@pytest.mark.parametrize("node", ["Flux1DecodeImage", "Flux1EncodeImage", "Flux1FillConditioning",
                                  "Flux1ControlConditioning", "Flux1KontextReference"])  # fmt: skip
def test_V06_from_comfyui_s_loader_it_is_refused_by_each_of_our_nodes(place: Place, node):
    add = GraphBuilder()
    clip, _ = encoders(add)
    vae = add("VAELoader", vae_name="pixel_space")[0]
    image = add("EmptyImage", width=64, height=64, batch_size=1, color=255)[0]
    text = add("Flux1TextEncode", clip=clip, prompt="a lake", guidance=3.5)[0]
    mask = add("SolidMask", value=1.0, width=64, height=64)[0]
    inputs = {
        "Flux1DecodeImage": {"latent": sampled(add)},
        "Flux1EncodeImage": {"image": image},
        "Flux1FillConditioning": {"conditioning": text, "image": image, "mask": mask},
        "Flux1ControlConditioning": {"conditioning": text, "control_image": image},
        "Flux1KontextReference": {"conditioning": text, "images.image0": image, "sizing": "own size"},
    }[node]
    out = add(node, vae=vae, **inputs)
    add("PreviewAny", source=out[0])
    assert refused(place, add.graph, "vae", "16", "3 channels", *OURS).node_type == node


def test_a_latent_of_another_model_is_not_decoded(place: Place):
    """Neither is it a shape that torch names."""
    refused(place, picture_of(lambda add: add("EmptyLatentImage", width=64, height=64, batch_size=1)[0]),
            "16 channels", "4 channels", *OURS)  # fmt: skip
