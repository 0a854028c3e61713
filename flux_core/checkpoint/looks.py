"""What each kind of model file looks like: a table of tensor names, from the most special to the most general."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Kind = Literal[
    "transformer", "checkpoint", "t5", "clip_l", "clip_g", "autoencoder", "lora", "redux", "clip_vision", "controlnet",
    "other", "unknown",
]  # fmt: skip
Layout = Literal["bfl", "diffusers"]

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.")  # what FLUX.1 files put in front
_P = "^(?P<prefix>" + "|".join(map(re.escape, PREFIXES)) + ")?"
_N = r"\.[0-9]{1,4}\."  # a block's number


class Look(NamedTuple):
    """A file with a tensor name that `names` finds (a regular expression) is a `what`."""

    names: str
    kind: Kind
    what: str
    layout: Layout | None = None


LOOKS = (  # the first that fits; FLUX.1's relatives before FLUX.1, as they share most names
    Look(
        r"[._](lora_(A|B|up|down)|lora[12]?\.(up|down)|lokr_w[12]|hada_w[12]|oft_blocks)\b|\.diff(_b)?$", "lora", "LoRA"
    ),
    Look(r"\.absmax$|\.bitsandbytes__", "other", "NF4 (bitsandbytes) model"),
    Look(r"\.(qweight|wscales)$", "other", "SVDQuant (Nunchaku) model"),
    Look(_P + r"(controlnet_|input_hint_block\.|control_model\.|zero_convs\.)", "controlnet", "ControlNet"),
    Look(r"^redux_(up|down)\.", "redux", "FLUX.1 Redux image projection"),
    Look(_P + r"double_stream_modulation_img\.", "other", "FLUX.2 transformer"),
    Look(_P + r"distilled_guidance_layer\.", "other", "Chroma transformer"),
    Look(_P + r"txt_in\.individual_token_refiner\.", "other", "HunyuanVideo transformer"),
    Look(_P + rf"transformer_blocks{_N}img_mod\.", "other", "Qwen-Image transformer"),
    Look(_P + rf"(txt_norm\.|double_blocks{_N}img_mlp\.gate_proj)", "other", "Ovis-Image transformer"),
    Look(_P + r"(joint_blocks\.|pos_embed\.proj\.)", "other", "Stable Diffusion 3 or PixArt transformer"),
    Look(_P + r"joint_transformer_blocks\.", "other", "AuraFlow transformer"),
    Look(_P + r"noise_refiner\.", "other", "Lumina 2 or Z-Image transformer"),
    Look(_P + rf"blocks{_N}cross_attn\.", "other", "Wan or Cosmos video transformer"),
    Look(_P + rf"(double_blocks{_N}(img|txt)_|single_blocks{_N}linear[12]\.)", "transformer", "FLUX.1", "bfl"),
    Look(_P + rf"single_transformer_blocks{_N}(proj_mlp|norm\.linear)\.", "transformer", "FLUX.1", "diffusers"),
    Look(_P + rf"transformer_blocks{_N}norm1_context\.linear\.", "transformer", "FLUX.1", "diffusers"),
    Look(r"^conditioner\.embedders\.", "other", "Stable Diffusion XL checkpoint"),
    Look(r"^cond_stage_model\.", "other", "Stable Diffusion 1 or 2 checkpoint"),
    Look(_P + r"(label_emb\.|add_embedding\.)", "other", "Stable Diffusion XL UNet"),
    Look(_P + rf"(input_blocks{_N}|down_blocks{_N})", "other", "Stable Diffusion UNet"),
    Look(rf"^(?P<prefix>.*?)encoder\.block{_N}layer\.0\.SelfAttention\.", "t5", "T5 text encoder"),
    Look(rf"^(?P<prefix>.*?)text_model\.encoder\.layers{_N}", "clip_l", "CLIP-L text encoder"),
    Look(rf"^transformer\.resblocks{_N}", "clip_l", "CLIP-L text encoder"),
    Look(rf"^(?!.*vision_model\.)(.*\.)?layers{_N}self_attn\.q_proj\.", "other", "language model as text encoder"),
    Look(r"^(.*\.)?vision_model\.", "clip_vision", "CLIP or SigLIP vision model"),
    Look(r"^(?P<prefix>.*?)(encoder|decoder)\.conv_(in|out)\.", "autoencoder", "VAE (autoencoder)"),
    Look(r"^(.*\.)?(encoder|decoder)\.(conv1|middle)\.", "other", "video VAE (autoencoder)"),
)
LORA_FAMILIES = {  # by names with underscores for dots; relatives that share most of FLUX.1's names come first
    "HunyuanVideo": r"individual_token_refiner|(img|txt)_mod_linear|(img|txt)_mlp_fc[12]|blocks_\d+_modulation_linear",
    "FLUX.2": r"double_stream_modulation|single_stream_modulation|to_qkv_mlp_proj",
    "Chroma": r"distilled_guidance_layer",
    "Qwen-Image": r"transformer_blocks_\d+_(img|txt)_(mlp|mod)_",
    # FLUX.1 has but 19 of these blocks.
    "Stable Diffusion 3 or Qwen-Image": r"joint_blocks_|(?<!single_)transformer_blocks_(19|[2-9]\d)_attn_",
    "FLUX": r"double_blocks|single_blocks|single_transformer_blocks|(?<!\d_)transformer_blocks_\d+_(attn_|ff_|norm1_)",
    "SDXL": r"lora_te2_text_model|text_encoder_2_text_model|add_embedding|blocks?_\S*transformer_blocks_[1-9]",
    "Stable Diffusion (SD1.5 or SD2)": r"(down|up|mid|input|middle|output)_blocks?_",
    "Wan": r"(^|_)blocks_\d+_(cross_attn|self_attn|ffn)_",
}
BUNDLED = ("vae.", "first_stage_model.", "text_encoders.", "cond_stage_model.")  # what an all-in-one file adds


def look_at(names: Iterable[str]) -> tuple[Look | None, str]:
    """The first look that these tensor names have, and the prefix in front of its names."""
    lines = "\n".join(names)
    for look in LOOKS:
        if found := re.search(look.names, lines, re.MULTILINE):
            return look, found.groupdict().get("prefix") or ""
    return None, ""


def without_prefix(name: str) -> str:
    """A transformer tensor's own name."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def lora_family(names: Iterable[str]) -> str:
    """Which model a LoRA with these tensor names was made for; "" where they don't tell."""
    lines = "\n".join(names).replace(".", "_")
    return next((family for family, marks in LORA_FAMILIES.items() if re.search(marks, lines)), "")
