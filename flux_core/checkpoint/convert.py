"""Brings every layout of a FLUX.1 transformer to the released (BFL) names, copying only what has to be joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .check import expect_transformer
from .fp8 import SUFFIXES, dequantize, mark_scales
from .identify import header_of
from .layers import FINAL_MODULATION, Layer, layers


def to_bfl(
    state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, file: str = "tensors in memory"
) -> dict[str, Tensor]:
    """A FLUX.1 transformer under its released names, `double_blocks.0.img_attn.norm.query_norm.scale` and the like.

    Takes BFL's and diffusers' layouts, with or without a prefix, and any fp8 layout, which comes out as plain fp8 or
    with ComfyUI's markers. What needs no joining is passed on uncopied; what is given is never changed. Where
    diffusers' q, k and v have one common scale the joined layer stays fp8; else it is dequantised to bf16, rounded
    once. Raises Flux1Error for a state dict that is no whole FLUX.1 transformer.
    """
    checkpoint = expect_transformer(header_of(state_dict, metadata, file))
    prefix = checkpoint.prefix
    own = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
    own = mark_scales(own, metadata)
    if checkpoint.layout == "diffusers":
        return dict(pair for layer in layers(checkpoint.params) for pair in _from_diffusers(layer, own))
    return {_norm_as_released(name): tensor for name, tensor in own.items()}


def _norm_as_released(name: str) -> str:
    """ComfyUI saves the norms' scale as `weight`."""
    return name.removesuffix("weight") + "scale" if name.endswith("_norm.weight") else name


def _from_diffusers(layer: Layer, own: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one layer out of diffusers' one or several."""
    if layer.is_norm:
        yield f"{layer.name}.scale", own[f"{layer.sources[0]}.weight"]
        return
    endings = (".weight", ".bias", *SUFFIXES)
    parts = [{end: own[source + end] for end in endings if source + end in own} for source in layer.sources]
    joined = parts[0] if len(parts) == 1 else _joined(layer.name, parts)
    if layer.name == FINAL_MODULATION:
        joined |= {end: _halves_swapped(joined[end]) for end in (".weight", ".bias")}
    yield from ((layer.name + end, tensor) for end, tensor in joined.items())


def _joined(name: str, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Layers one below the other as one layer; fp8 with different scales is dequantised first."""
    if not _share_scale(parts):
        parts = [_dequantized(name, part) for part in parts]
    rest = {end: tensor for end, tensor in parts[0].items() if end in SUFFIXES}
    if ".input_scale" in rest:  # the three see one input: the largest scale holds for all
        rest[".input_scale"] = torch.stack([part[".input_scale"] for part in parts]).amax(dim=0)
    ends = [end for end in (".weight", ".bias") if end in parts[0]]
    return {end: torch.cat([part[end] for part in parts]) for end in ends} | rest


def _share_scale(parts: list[dict[str, Tensor]]) -> bool:
    """Whether the parts are one number format with one scale, or have no scales at all."""
    first, *others = parts
    ends = [end for end in first if end in SUFFIXES and end != ".input_scale"]
    return all(
        part.keys() == first.keys()
        and part[".weight"].dtype == first[".weight"].dtype
        and all(torch.equal(part[end], first[end]) for end in ends)
        for part in others
    )


def _dequantized(name: str, part: dict[str, Tensor]) -> dict[str, Tensor]:
    whole = dequantize({name + end: tensor for end, tensor in part.items()})
    return {full.removeprefix(name): tensor for full, tensor in whole.items()}


def _halves_swapped(tensor: Tensor) -> Tensor:
    """diffusers stacks (scale, shift), BFL (shift, scale)."""
    return torch.cat(tensor.chunk(2)[::-1])
