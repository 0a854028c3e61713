"""What a file is, from names and shapes alone."""

import re
from dataclasses import replace

import pytest
import torch

from flux_core.checkpoint import Header, identify
from flux_core.errors import Flux1Error
from flux_core.variants import DEV, FluxParams
from tests.flux_core.checkpoint_samples import clip, diffusers_flux, flux, header, t5, vae

TINY = FluxParams(hidden_size=128, num_heads=1, depth=3, depth_single_blocks=6, context_in_dim=64, vec_in_dim=32)


def named(*names: str) -> Header:
    return header({name: torch.zeros(2, 2, device="meta") for name in names})


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer.", "model."])
@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_sizes_of_a_flux_are_read_from_either_layout_behind_any_prefix(layout: str, prefix: str) -> None:
    weights = flux() if layout == "bfl" else diffusers_flux()
    found = identify(header({prefix + name: tensor for name, tensor in weights.items()}))
    assert (found.kind, found.layout, found.prefix, found.params) == ("transformer", layout, prefix, TINY)
    assert found.parameters == sum(tensor.numel() for tensor in weights.values())


def test_description_of_the_released_size_counts_its_parameters() -> None:
    with torch.device("meta"):
        from diffusers import FluxTransformer2DModel

        weights = FluxTransformer2DModel(guidance_embeds=True, in_channels=384, out_channels=64).bfloat16().state_dict()
    found = identify(header(weights))
    assert found.params == replace(DEV, in_channels=384)
    assert found.parameters == 11_902_391_360
    assert found.description == "FLUX.1 Fill transformer, diffusers layout, 11.9 B parameters, bf16, 19+38 blocks"


@pytest.mark.parametrize(
    ("sizes", "file", "variant"),
    [
        ({}, "model.safetensors", "dev"),
        ({}, "FLUX1-Krea.safetensors", "krea"),
        ({}, "flux1-dev-kontext_fp8_scaled.safetensors", "kontext"),
        ({}, "flux1-fill-dev.safetensors", "dev"),
        ({"guidance": False}, "flux1-dev.safetensors", "schnell"),
        ({"channels": 384}, "kontext.safetensors", "fill"),
        ({"channels": 128}, "flux1-depth-dev.safetensors", "depth"),
        ({"channels": 128}, "model.safetensors", "canny"),
        ({"double": 1}, "flux1-dev.safetensors", "lite"),
        ({"channels": 96}, "flux1-dev.safetensors", None),
    ],
)
def test_shapes_decide_the_variant_and_the_name_only_between_twins(
    sizes: dict[str, int], file: str, variant: str
) -> None:
    with torch.device("meta"):
        weights = diffusers_flux(**sizes)
    assert identify(header(weights, file)).variant == variant
    assert identify(header(weights), name=file).variant == variant


def test_metadata_overrides_head_axes_and_mlp() -> None:
    with torch.device("meta"):
        weights = flux()
    found = identify(header(weights, flux1__head_dim="64", flux1__axes_dim="[8, 28, 28]", flux1__mlp_ratio="2"))
    assert found.params == replace(TINY, num_heads=2, axes_dim=(8, 28, 28), mlp_ratio=2.0)


@pytest.mark.parametrize(
    "metadata",
    [
        {"flux1__head_dim": "zero"},
        {"flux1__head_dim": "0"},
        {"flux1__head_dim": "nan"},
        {"flux1__head_dim": "0.5"},
        {"flux1__head_dim": "48"},
        {"flux1__head_dim": "16"},  # 2 + 7 + 7: RoPE needs even widths
        {"flux1__mlp_ratio": "-1"},
        {"flux1__axes_dim": "[16, 56]"},
        {"flux1__axes_dim": "[16, 56, 58]"},
        {"flux1__axes_dim": "[16, 55, 57]"},
        {"flux1__axes_dim": "[" * 100_000},
        {"flux1__axes_dim": "128"},
    ],
)
def test_metadata_that_can_not_be_is_refused_by_its_name(metadata: dict[str, str]) -> None:
    with torch.device("meta"):
        weights = flux()
    with pytest.raises(Flux1Error, match=r"metadata flux1\.(head_dim|axes_dim|mlp_ratio)"):
        identify(header(weights, **metadata))


def test_text_encoders_and_vae_tell_their_sizes() -> None:
    sizes = identify(header(t5())).text
    assert (sizes.width, sizes.layers, sizes.mlp, sizes.heads, sizes.inner, sizes.vocabulary) == (
        64,
        3,
        96,
        4,
        64,
        32128,
    )
    sizes = identify(header(clip())).text
    assert (sizes.width, sizes.layers, sizes.mlp, sizes.heads, sizes.vocabulary) == (64, 3, 128, 1, 49408)
    assert identify(header(vae(16))).latent_channels == 16
    assert identify(header({f"first_stage_model.{name}": t for name, t in vae(4).items()})).latent_channels == 4


def test_clip_g_is_told_from_clip_l_by_its_depth() -> None:
    names = [f"text_model.encoder.layers.{i}.mlp.fc1.weight" for i in range(32)]
    names += ["text_model.embeddings.token_embedding.weight"]
    assert identify(named(*names)).kind == "clip_g"
    assert identify(named(*names[:12], names[-1])).kind == "clip_l"


def test_all_in_one_checkpoint_still_shows_its_transformer() -> None:
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in flux().items()}
    count = sum(tensor.numel() for tensor in weights.values())
    weights |= {f"vae.{name}": tensor for name, tensor in vae().items()}
    found = identify(header(weights))
    assert (found.kind, found.variant, found.params, found.parameters) == ("checkpoint", "dev", TINY, count)


@pytest.mark.parametrize(
    ("names", "kind", "what"),
    [
        (["double_blocks.0.img_attn.qkv.lora_A.weight", "double_blocks.0.img_attn.norm.key_norm.scale"], "lora", "FLUX"),
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], "lora", "FLUX"),
        (["transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"], "lora", "FLUX"),
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"], "lora", "SDXL"),
        (["redux_up.weight", "redux_down.weight"], "redux", "Redux"),
        (["vision_model.encoder.layers.0.mlp.fc1.weight"], "clip_vision", "vision"),
        (["vision_model.encoder.layers.0.self_attn.q_proj.weight"], "clip_vision", "vision"),
        (["vision_model.encoder.x", "model.layers.0.self_attn.q_proj.weight"], "other", "language"),
        (["controlnet_blocks.0.weight", "transformer_blocks.0.norm1_context.linear.weight"], "controlnet", "ControlNet"),
        (["double_blocks.0.img_attn.qkv.weight", "double_stream_modulation_img.lin.weight"], "other", r"FLUX\.2"),
        (["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight"], "other", "Chroma"),
        (["double_blocks.0.img_attn.qkv.weight", "txt_in.individual_token_refiner.x"], "other", "Hunyuan"),
        (["transformer_blocks.0.img_mod.1.weight", "txt_norm.weight"], "other", "Qwen"),
        (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"], "other", "1 or 2 checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.x"], "other", "XL checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"], "other", "XL UNet"),
        (["down_blocks.0.resnets.0.conv1.weight", "add_embedding.linear_1.weight"], "other", "XL UNet"),
        (["down_blocks.0.resnets.0.conv1.weight"], "other", "Diffusion UNet"),
        (["encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"], "other", "UMT5"),
        (["model.layers.0.self_attn.q_proj.weight"], "other", "language model"),
        (["decoder.middle.0.residual.0.gamma"], "other", "video VAE"),
        (["double_blocks.0.img_attn.qkv.weight", "img_in.bias"], "other", "LongCat"),
        (["transformer_blocks.0.attn.to_q.qweight"], "other", "SVDQuant"),
        (["double_blocks.0.img_attn.qkv.weight.absmax"], "other", "NF4"),
        (["something.else"], "unknown", "unknown"),
        ([], "unknown", "unknown"),
    ],
)  # fmt: skip
def test_files_of_other_models_are_known_by_name(names: list[str], kind: str, what: str) -> None:
    found = identify(named(*names))
    assert found.kind == kind
    assert re.search(what, found.description)
