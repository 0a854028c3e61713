"""One random LoRA, as each trainer would write it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flux_core.checkpoint.layers import FINAL_MODULATION, Layer, layers
from flux_core.variants import FluxParams
from painter.family import PARAMS

Pairs = dict[str, tuple[Tensor, Tensor]]
"""{released layer: (up, down)}"""

RANK = 4
ATTENTION = ("attn.qkv", "attn.proj", "linear1", "linear2")
XLABS = {"img_attn.qkv": "qkv_lora1", "img_attn.proj": "proj_lora1", "txt_attn.qkv": "qkv_lora2",
         "txt_attn.proj": "proj_lora2", "linear1": "qkv_lora", "linear2": "proj_lora"}  # fmt: skip


def linear_layers(params: FluxParams) -> list[Layer]:
    return [layer for layer in layers(params) if not layer.is_norm]


def random_lora(params: FluxParams, rank: int = RANK, size: float = 1.0) -> Pairs:
    """On every linear layer, each change as large as its rows' share of `size`."""
    return {
        layer.name: (
            torch.randn(sum(layer.rows), rank) * size / rank,
            torch.randn(rank, layer.columns) / layer.columns**0.5,
        )
        for layer in linear_layers(params)
    }


def attention_only(pairs: Pairs, params: FluxParams) -> Pairs:
    """What XLabs can say: attention's layers, and of linear1 the rows that are attention's."""
    kept = {name: pair for name, pair in pairs.items() if name.endswith(ATTENTION)}
    rows = torch.arange(3 * params.hidden_size + round(params.mlp_ratio * params.hidden_size))[:, None]
    return {
        name: (up * (rows < 3 * params.hidden_size) if name.endswith("linear1") else up, down)
        for name, (up, down) in kept.items()
    }


def bfl(pairs: Pairs, prefix: str = "", within: str = "") -> dict[str, Tensor]:
    """Black Forest Labs' names; with a prefix also those of PEFT on their model (fal's Kontext trainer)."""
    out = {}
    for name, (up, down) in pairs.items():
        out |= {f"{prefix}{name}.lora_A{within}.weight": down, f"{prefix}{name}.lora_B{within}.weight": up}
    return out


def kohya(pairs: Pairs, alpha: float = 2.0) -> dict[str, Tensor]:
    """The alpha is taken out of the upper halves, so that the LoRA is the same."""
    out = {}
    for name, (up, down) in pairs.items():
        key = "lora_unet_" + name.replace(".", "_")
        out[f"{key}.lora_up.weight"], out[f"{key}.lora_down.weight"] = up * (len(down) / alpha), down
        out[f"{key}.alpha"] = torch.tensor(alpha)
    return out


def diffusers(pairs: Pairs, params: FluxParams, prefix: str = "transformer.", within: str = "") -> dict[str, Tensor]:
    """One LoRA for each of q, k, v and MLP, all with the same lower half."""
    out = {}
    for name, source, up, down in split(pairs, params):
        if name == FINAL_MODULATION:  # (scale, shift), where the released model has (shift, scale)
            up = torch.cat(up.chunk(2)[::-1])
        out |= {f"{prefix}{source}.lora_A{within}.weight": down.clone(), f"{prefix}{source}.lora_B{within}.weight": up}
    return out


def onetrainer(pairs: Pairs, params: FluxParams) -> dict[str, Tensor]:
    return underscored(diffusers(pairs, params, prefix=""), "lora_transformer_")


def underscored(lora: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """PEFT's keys as trainers write them that come from kohya's."""
    return {
        prefix + source.replace(".", "_") + end: tensor
        for name, tensor in lora.items()
        for source, _, part in [name.rpartition(".lora_")]
        for end in [{"A.weight": ".lora_down.weight", "B.weight": ".lora_up.weight"}[part]]
    }


def xlabs(pairs: Pairs, params: FluxParams) -> dict[str, Tensor]:
    out = {}
    for name, (up, down) in pairs.items():
        stack, number, within = name.split(".", 2)
        if within == "linear1":
            up = up[: 3 * params.hidden_size]
        key = f"{stack}.{number}.processor.{XLABS[within]}"
        out |= {f"{key}.down.weight": down, f"{key}.up.weight": up.contiguous()}
    return out


def split(pairs: Pairs, params: FluxParams):
    """(released layer, diffusers' layer, up, down) of each layer that diffusers has."""
    for layer in linear_layers(params):
        if layer.name in pairs:
            up, down = pairs[layer.name]
            for source, rows in zip(layer.sources, up.split(layer.rows), strict=True):
                yield layer.name, source, rows.contiguous(), down


def bfl_control(pairs: Pairs, biases: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As Black Forest Labs' control LoRAs: changed biases, and norms replaced."""
    out = bfl(pairs) | {f"{name}.lora_B.bias": bias for name, bias in biases.items()}
    return out | {f"{name}.scale": scale for name, scale in norms.items()}


def random_control(params: FluxParams, rank: int = RANK) -> tuple[Pairs, dict[str, Tensor], dict[str, Tensor]]:
    """LoRA, biases and norms for a model with these sizes, img_in seeing 128 channels."""
    pairs = random_lora(params, rank)
    pairs["img_in"] = pairs["img_in"][0], torch.randn(rank, 128) / 8
    biases = {name: torch.randn(len(up)) * 0.1 for name, (up, _) in pairs.items()}
    norms = {layer.name: 1 + 0.3 * torch.randn(layer.rows) for layer in layers(params) if layer.is_norm}
    return pairs, biases, norms


def diffusers_norm(name: str) -> str:
    """diffusers' name of a norm."""
    return next(layer.sources[0] for layer in layers(PARAMS) if layer.name == name)
