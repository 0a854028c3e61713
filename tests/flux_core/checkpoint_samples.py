"""Small model files of every kind, for the tests of flux_core.checkpoint."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from flux_core.checkpoint import Header, header_of, to_bfl

WIDTH = 128  # one head of the released width: the smallest FLUX that ComfyUI's own loader takes


def write(path: Path, header: bytes | dict, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file byte by byte, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def diffusers_flux(
    double: int = 3, single: int = 6, guidance: bool = True, channels: int = 64
) -> dict[str, torch.Tensor]:
    return diffusers_model(double, single, guidance, channels).state_dict()


def diffusers_model(
    double: int = 3, single: int = 6, guidance: bool = True, channels: int = 64
) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        in_channels=channels,
        out_channels=64,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=WIDTH,
        num_attention_heads=1,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=guidance,
    ).eval()
    for name, parameter in model.named_parameters():
        if ".norm_" in name:  # ones by default, which would hide a mix-up
            torch.nn.init.normal_(parameter, 1, 0.1)
    return model


def flux(**sizes: int) -> dict[str, torch.Tensor]:
    """A FLUX transformer in the released names."""
    return to_bfl(diffusers_flux(**sizes))


def t5() -> dict[str, torch.Tensor]:
    config = T5Config(d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu")
    weights = T5EncoderModel(config).state_dict()
    return {name: tensor for name, tensor in weights.items() if "embed_tokens" not in name}


def clip() -> dict[str, torch.Tensor]:
    config = CLIPTextConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=1)
    weights = CLIPTextModel(config).state_dict()
    return {name if name.startswith("text_model") else f"text_model.{name}": t for name, t in weights.items()}


def vae(channels: int = 16) -> dict[str, torch.Tensor]:
    return AutoencoderKL(latent_channels=channels, block_out_channels=(32,), norm_num_groups=8).state_dict()


def header(state_dict: dict[str, torch.Tensor], file: str = "model.safetensors", **metadata: str) -> Header:
    return header_of(state_dict, {key.replace("__", "."): value for key, value in metadata.items()}, file)
