"""The tiny family: its sizes, its models, and its files in the released names, layouts and number types."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from flux_core.model.transformer import Transformer
from flux_core.variants import FluxParams
from painter.autoencoder import Autoencoder, AutoencoderConfig

TEXT_WIDTH = 64
PARAMS = FluxParams(
    vec_in_dim=TEXT_WIDTH, context_in_dim=TEXT_WIDTH, hidden_size=128, num_heads=1, depth=3, depth_single_blocks=4
)
VARIANTS: dict[str, FluxParams] = {
    "dev": PARAMS,
    "schnell": replace(PARAMS, guidance_embed=False),
    "fill": replace(PARAMS, in_channels=384),
    "kontext": PARAMS,
    "canny": replace(PARAMS, in_channels=128),
    "depth": replace(PARAMS, in_channels=128),
}
FILES = {
    "dev": "diffusion_models/flux1-dev.safetensors",
    "schnell": "diffusion_models/flux1-schnell.safetensors",
    "fill": "diffusion_models/flux1-fill-dev.safetensors",
    "kontext": "diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors",
    "canny": "diffusion_models/flux1-canny-dev.safetensors",
    "depth": "diffusion_models/flux1-depth-dev.safetensors",
    "t5": "text_encoders/t5xxl_fp16.safetensors",
    "clip": "text_encoders/clip_l.safetensors",
    "ae": "vae/ae.safetensors",
}
FP8_MAX = torch.finfo(torch.float8_e4m3fn).max


def new_t5() -> T5EncoderModel:
    """T5 v1.1's encoder with two layers of two heads; heads stand in the shape of relative_attention_bias."""
    return T5EncoderModel(
        T5Config(
            vocab_size=32128, d_model=TEXT_WIDTH, d_kv=64, d_ff=128, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, use_cache=False,
        )
    )  # fmt: skip


def new_clip() -> CLIPTextModel:
    """CLIP-L's text model with two layers of one head; a head is 64 wide as in CLIP-L."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=2,
            num_attention_heads=TEXT_WIDTH // 64, max_position_embeddings=77, hidden_act="quick_gelu",
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip


def new_transformer(variant: str) -> Transformer:
    """A transformer with random weights whose velocity has a deviation of about one."""
    model = Transformer(VARIANTS[variant])
    nn.init.normal_(model.final_layer.linear.weight, std=PARAMS.hidden_size**-0.5)
    return model


def released_names(model: Transformer) -> dict[str, Tensor]:
    """The state dict with the released files' names, where a norm's weight is called scale."""
    return {
        name.replace("_norm.weight", "_norm.scale"): tensor.detach().clone()
        for name, tensor in model.state_dict().items()
    }


def to_scaled_fp8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The blocks' matrices as float8 with one scale each, the rest as bf16, in the layout of `*_fp8_scaled` files."""
    out: dict[str, Tensor] = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.startswith(("double_blocks.", "single_blocks.")):
            scale = tensor.float().abs().max() / FP8_MAX
            out[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            out[name.removesuffix("weight") + "scale_weight"] = scale
        else:
            out[name] = tensor.to(torch.bfloat16)
    return out


def save_transformer(path: Path, model: Transformer) -> None:
    """bf16, or scaled fp8 where the file's name says so."""
    tensors = released_names(model)
    half = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    save(path, to_scaled_fp8(tensors) if "fp8_scaled" in path.name else half)


def save_t5(path: Path, model: T5EncoderModel) -> None:
    tensors = {k: v.half() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    save(path, tensors)


def save_clip(path: Path, model: CLIPTextModel) -> None:
    save(path, {f"text_model.{k}": v.half() for k, v in model.state_dict().items()})


def save_autoencoder(path: Path, model: Autoencoder, config: AutoencoderConfig = AutoencoderConfig()) -> None:
    tensors = {k: v.half() for k, v in model.state_dict().items()}
    save(path, tensors, {"flux1.norm_groups": str(config.norm_groups)})


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, {"format": "pt", **(metadata or {})})


def load_t5(path: Path) -> T5EncoderModel:
    model, tensors = new_t5(), load_file(path)
    model.load_state_dict({k: v.float() for k, v in tensors.items()} | {
        "encoder.embed_tokens.weight": tensors["shared.weight"].float()
    })  # fmt: skip
    return model.eval()


def load_clip(path: Path) -> CLIPTextModel:
    model = new_clip()
    model.load_state_dict({k.removeprefix("text_model."): v.float() for k, v in load_file(path).items()})
    return model.eval()


def load_autoencoder(path: Path) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return model.eval()


def load_transformer(path: Path, variant: str) -> Transformer:
    tensors = load_file(path)
    plain = {
        name: tensor.float() * tensors.get(name.removesuffix("weight") + "scale_weight", torch.tensor(1.0))
        for name, tensor in tensors.items()
        if name != "scaled_fp8" and not name.endswith(".scale_weight")
    }
    model = Transformer(VARIANTS[variant])
    model.load_state_dict(plain)
    return model.eval()


def write_random_family(folder: Path, seed: int = 0) -> None:
    """Every file of FILES with seeded random weights, for tests of all that doesn't depend on what is painted."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for variant in VARIANTS:
            save_transformer(folder / FILES[variant], new_transformer(variant))
        save_t5(folder / FILES["t5"], new_t5())
        save_clip(folder / FILES["clip"], new_clip())
        save_autoencoder(folder / FILES["ae"], Autoencoder())
