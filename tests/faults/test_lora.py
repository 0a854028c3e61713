"""LoRAs: another model's is refused, one that is gone leaves no trace, and names of trainers don't matter."""

import itertools
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file

from painter.family import PARAMS
from tests.faults.running import (
    DEV,
    FP8,
    FRESH,
    OURS,
    SLOW,
    Place,
    assert_same,
    graph_of,
    interrupted,
    latent,
    lora,
    picture_of,
    refused,
    sampled,
)
from tests.flux_core import lora_samples as samples

pytestmark = [pytest.mark.usefixtures("alive", "loras")]

DIALECTS: dict[str, Callable[[samples.Pairs], dict[str, torch.Tensor]]] = {
    "kohya": samples.kohya,
    "diffusers": lambda pairs: samples.diffusers(pairs, PARAMS),
    "PEFT": lambda pairs: samples.diffusers(pairs, PARAMS, "base_model.model.", ".default"),
    "XLabs": lambda pairs: samples.xlabs(pairs, PARAMS),
    "ai-toolkit": lambda pairs: samples.bfl(pairs, prefix="diffusion_model."),
}
STYLE = "R kohya.safetensors"


@pytest.fixture(scope="module")
def loras(models) -> None:
    folder = models / "loras"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(5)
    pairs = samples.attention_only(samples.random_lora(PARAMS, size=0.2), PARAMS)
    for dialect, write in DIALECTS.items():
        save_file(write(pairs), folder / f"R {dialect}.safetensors")
    names = [f"lora_unet_input_blocks_{block}_1_transformer_blocks_1_attn2_to_k" for block in (4, 5)]
    sdxl = {f"{name}.{part}.weight": torch.ones(4, 4) for name in names for part in ("lora_up", "lora_down")}
    save_file(sdxl, folder / "R other.safetensors")
    big = samples.bfl({"double_blocks.0.img_attn.proj": (torch.randn(3072, 4), torch.randn(4, 3072))})
    save_file(big, folder / "R released size.safetensors")


def test_R01_an_sdxl_lora_is_refused(place: Place):
    graph = graph_of(lambda add: sampled(add, DEV, lora("R other.safetensors")))
    refused(place, graph, "0 of 4 keys", "SDXL", "R other.safetensors", *OURS, status=400)


def test_R02_a_lora_of_another_size_is_refused(place: Place):
    graph = graph_of(lambda add: sampled(add, DEV, lora("R released size.safetensors")))
    key = "double_blocks.0.img_attn.proj"
    error = refused(place, graph, key, "[128, 128]", "[3072, 3072]", "R released size.safetensors", *OURS)
    assert error.node_type == "Flux1LoadLora"


@pytest.mark.parametrize("file", [DEV, FP8])
def test_R05_strength_zero_is_no_lora(place: Place, reference: Place, file):
    seed = next(FRESH)
    assert torch.equal(latent(place, file, lora(STYLE, 0.0), seed=seed), latent(reference, file, seed=seed))


@pytest.mark.parametrize("file", [DEV, FP8], ids=["R06", "R08"])
def test_a_lora_that_is_gone_leaves_no_trace(place: Place, reference: Place, file):
    seed = next(FRESH)
    assert not torch.equal(latent(place, file, lora(STYLE), seed=seed), latent(reference, file, seed=seed))
    assert_same(place, reference, file)


@pytest.mark.parametrize("file", [DEV, FP8])
def test_R07_an_interrupted_lora_leaves_no_trace(place: Place, reference: Place, file):
    graph = graph_of(lambda add: sampled(add, file, lora(STYLE), SLOW, steps=40))
    assert interrupted(place, graph)[-1]["type"] == "execution_interrupted"
    assert_same(place, reference, file)
    assert_same(place, reference, file, lora(STYLE))


def test_R11_all_trainers_names_of_one_lora_paint_the_same_picture(place: Place):
    seed = next(FRESH)
    pictures = {
        dialect: place.client.run(
            picture_of(lambda add, dialect=dialect: sampled(add, DEV, lora(f"R {dialect}.safetensors"), seed=seed))
        ).images[0]
        for dialect in DIALECTS
    }
    for one, other in itertools.pairwise(pictures):
        assert pictures[one].tobytes() == pictures[other].tobytes(), (one, other)
