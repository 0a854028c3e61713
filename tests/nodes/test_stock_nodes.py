"""ComfyUI's own nodes on our MODEL and on ComfyUI's, through /prompt: the same latents."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from painter.family import load_transformer
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, latent_of, model, prompt
from workflows.client import Client
from workflows.server import Server

TOLERANCE = 1e-4
LOADERS = ["Flux1LoadModel", "UNETLoader"]
FILL, KONTEXT = "flux1-fill-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"


@pytest.fixture(scope="module")
def loras(models):
    """One random LoRA on every block's attention, named as kohya's trainer and as diffusers name it."""
    torch.manual_seed(3)
    weights = load_transformer(models / "diffusion_models" / "flux1-dev.safetensors", "dev").state_dict()
    kohya, diffusers = {}, {}
    for block in range(3):
        layer = f"double_blocks.{block}.img_attn.proj"
        rows, columns = weights[f"{layer}.weight"].shape
        down, up = torch.randn(4, columns) * 0.2, torch.randn(rows, 4) * 0.2
        name = "lora_unet_" + layer.replace(".", "_")
        kohya |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(4.0)}
        name = f"transformer.transformer_blocks.{block}.attn.to_out.0"
        diffusers |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    (models / "loras").mkdir(exist_ok=True)
    save_file(kohya, models / "loras" / "kohya.safetensors")
    save_file(diffusers, models / "loras" / "diffusers.safetensors")


def text_to_image(add: GraphBuilder, loader: str, change: Callable = lambda add, model: model, **settings):
    clip, _ = encoders(add)
    flux = change(add, model(add, loader))
    latent = add("EmptySD3LatentImage", width=96, height=64, batch_size=2)[0]
    return ksampler(add, flux, prompt(add, clip), prompt(add, clip, ""), latent, **settings)


def fill(add: GraphBuilder, loader: str):
    clip, vae = encoders(add)
    picture, mask = add("LoadImage", image="hole.png")[:2]
    positive, negative, latent = add(
        "InpaintModelConditioning", positive=prompt(add, clip, guidance=30.0), negative=prompt(add, clip, ""), vae=vae,
        pixels=picture, mask=mask, noise_mask=True,
    )[:3]  # fmt: skip
    return ksampler(add, model(add, loader, FILL), positive, negative, latent)


def references(add: GraphBuilder, loader: str, method: str):
    clip, vae = encoders(add)
    picture = add("LoadImage", image="hole.png")[0]
    conditioning, encoded = prompt(add, clip), add("VAEEncode", pixels=picture, vae=vae)[0]
    smaller = add("LatentUpscale", samples=encoded, upscale_method="area", width=48, height=64, crop="disabled")[0]
    for latent in (encoded, smaller):
        conditioning = add("ReferenceLatent", conditioning=conditioning, latent=latent)[0]
    conditioning = add(
        "FluxKontextMultiReferenceLatentMethod", conditioning=conditioning, reference_latents_method=method
    )[0]
    return ksampler(add, model(add, loader, KONTEXT), conditioning, prompt(add, clip, ""), encoded)


def lora(name: str) -> Callable:
    return lambda add, flux: add("LoraLoaderModelOnly", model=flux, lora_name=name, strength_model=0.8)[0]


def shifted(add: GraphBuilder, flux):
    return add("ModelSamplingFlux", model=flux, max_shift=1.15, base_shift=0.5, width=96, height=64)[0]


GRAPHS = {
    "KSampler cfg 1": text_to_image,
    "KSampler cfg 3": lambda add, loader: text_to_image(add, loader, cfg=3.0),
    "ModelSamplingFlux": lambda add, loader: text_to_image(add, loader, shifted),
    "LoRA by kohya": lambda add, loader: text_to_image(add, loader, lora("kohya.safetensors")),
    "LoRA by diffusers": lambda add, loader: text_to_image(add, loader, lora("diffusers.safetensors")),
    "InpaintModelConditioning": fill,
    "two references, offset": lambda add, loader: references(add, loader, "offset"),
    "two references, index": lambda add, loader: references(add, loader, "index"),
    "two references, uxo": lambda add, loader: references(add, loader, "uxo/uno"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_our_model_gives_what_comfyui_s_gives(name, running: Server, server: Client, loras):
    picture = Image.effect_noise((96, 64), 80).convert("RGBA")
    picture.putalpha(Image.new("L", (96, 64), 255))
    picture.paste((0, 0, 0, 0), (24, 16, 64, 40))
    server.upload(picture, "hole.png")
    latents = []
    for loader in LOADERS:
        add = GraphBuilder()
        latents.append(latent_of(running, server, add, GRAPHS[name](add, loader)))
    assert difference(*latents) <= TOLERANCE


def test_a_lora_changes_the_picture(running: Server, server: Client, loras):
    """Else the LoRA comparisons would hold for a LoRA that nobody applied."""
    latents = []
    for change in (lambda add, flux: flux, lora("kohya.safetensors"), lora("diffusers.safetensors")):
        add = GraphBuilder()
        latents.append(latent_of(running, server, add, text_to_image(add, "Flux1LoadModel", change)))
    plain, kohya, diffusers = latents
    assert difference(plain, kohya) > 0.01
    assert difference(kohya, diffusers) <= TOLERANCE
