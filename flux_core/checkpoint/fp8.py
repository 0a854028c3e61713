"""The five ways in which files keep fp8 weights, and how to have the weights back.

    a  plain          fp8 weights are the weights
    b  old scaled     a tensor `scaled_fp8`, and `.scale_weight` (perhaps `.scale_input`) beside each weight
    c  marked         `.weight_scale` and `.comfy_quant` (JSON in bytes) beside each weight
    d  in metadata    `.weight_scale`, and the JSON of all layers in the header's `_quantization_metadata`
    e  bare           scales, by either name, and no marker: ComfyUI would leave them out without a word

A scaled weight is its fp8 number times its scale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..errors import Flux1Error
from .header import quoted, read_json
from .looks import without_prefix

FP8_FORMATS = {torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2"}  # as ComfyUI calls them
OLD_MARKER = "scaled_fp8"
METADATA_MARKER = "_quantization_metadata"
SUFFIXES = (".weight_scale", ".input_scale", ".comfy_quant", ".weight_scale_2", ".pre_quant_scale")
OLD_SUFFIXES = {".scale_weight": ".weight_scale", ".scale_input": ".input_scale"}


def fp8_layout(names: Iterable[str], has_fp8: bool, metadata: Mapping[str, str]) -> str | None:
    """Which of the layouts "a" to "e" tensors with these names have, None without fp8 weights and scales."""
    endings = {name.rpartition(".")[2] for name in names}
    if METADATA_MARKER in metadata:
        return "d"
    if OLD_MARKER in endings:
        return "b"
    if "comfy_quant" in endings:
        return "c"
    if endings & {"weight_scale", "scale_weight"}:
        return "e"
    return "a" if has_fp8 else None


def marked_layers(metadata: Mapping[str, str], file: str | None = None) -> dict[str, dict[str, object]]:
    """The layers of layout d, {name without prefix: {"format": ...}}; empty without them."""
    try:
        layers = read_json(metadata.get(METADATA_MARKER, '{"layers": {}}'))["layers"]
        return {without_prefix(name): {"format": entry["format"], **entry} for name, entry in layers.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Flux1Error(
            "The fp8 scales' description in the header is malformed",
            file=file,
            expected=f'{METADATA_MARKER} = {{"layers": {{name: {{"format": ...}}}}}}',
            found=quoted(metadata[METADATA_MARKER]),
            fix="get the file again from its source, or in bf16",
        ) from None


def mark_scales(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """The same tensors with every scaled layout (b, d, e) written as c, which ComfyUI's loader applies.

    A scale that ComfyUI's fp8 can't express (one per row, or beside a weight that isn't fp8) is multiplied in, to
    bf16. Nothing else is copied, and what is given stays as it is.
    """
    described = marked_layers(metadata or {})
    old_marker = next((t for name, t in state_dict.items() if name.rpartition(".")[2] == OLD_MARKER), None)
    extra = {"full_precision_matrix_mult": True} if old_marker is not None and old_marker.numel() == 2 else {}
    marked = _with_new_names(state_dict)
    for layer in _scaled_layers(marked):
        if layer + ".comfy_quant" in marked:
            continue
        weight, scale = marked[layer + ".weight"], marked[layer + ".weight_scale"]
        if weight.dtype in FP8_FORMATS and scale.numel() == 1:
            entry = described.get(without_prefix(layer), {"format": FP8_FORMATS[weight.dtype], **extra})
            marked[layer + ".comfy_quant"] = torch.tensor(list(json.dumps(entry).encode()), dtype=torch.uint8)
        else:
            marked[layer + ".weight"] = _multiplied(layer, weight, scale, torch.bfloat16)
            _drop_scales(marked, layer)
    return marked


def dequantize(
    state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """The weights in `dtype` that a file in any fp8 layout stands for, without scales and markers.

    Multiplied in fp32 and rounded once. Tensors that are not fp8 are passed on as they are. Raises Flux1Error for
    formats other than fp8 (nvfp4, int4 ...).
    """
    plain = mark_scales(state_dict, metadata)
    for layer in _scaled_layers(plain):
        entry = read_json(bytes(plain[layer + ".comfy_quant"].tolist()).decode())
        if entry["format"] not in FP8_FORMATS.values():
            raise Flux1Error(
                f"The weights of {quoted(layer)} are not fp8",
                expected=" or ".join(FP8_FORMATS.values()),
                found=str(entry["format"]),
                fix="get the model in bf16 or fp8",
            )
        plain[layer + ".weight"] = _multiplied(layer, plain[layer + ".weight"], plain[layer + ".weight_scale"], dtype)
        _drop_scales(plain, layer)
    return {name: tensor.to(dtype) if tensor.dtype in FP8_FORMATS else tensor for name, tensor in plain.items()}


def _scaled_layers(state_dict: Mapping[str, Tensor]) -> list[str]:
    names = (name.removesuffix(".weight_scale") for name in state_dict if name.endswith(".weight_scale"))
    return [layer for layer in names if layer + ".weight" in state_dict]


def _with_new_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layout b's names as today's. An input scale of 1 says nothing: left out, as ComfyUI does."""
    renamed = {}
    for name, tensor in state_dict.items():
        layer, _, ending = name.rpartition(".")
        suffix = OLD_SUFFIXES.get("." + ending, "." + ending)
        if ending == OLD_MARKER or (ending == "scale_input" and tensor.item() == 1):
            continue
        renamed[layer + suffix if layer else name] = tensor
    return renamed


def _multiplied(layer: str, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight * scale, rounded once; (rows, columns) times one number, or one number a row."""
    per_row = tuple(scale.shape) in ((len(weight),), (len(weight), 1))
    if not (per_row or scale.numel() == 1) or weight.dtype == torch.uint8:
        raise Flux1Error(
            f"The scale of {quoted(layer)} doesn't fit its weight",
            expected=f"one number, or one for each of {len(weight)} rows",
            found=f"shape {list(scale.shape)} beside {weight.dtype} {list(weight.shape)}",
            fix="get the model in bf16 or fp8",
        )
    return (weight.float() * scale.float().reshape(-1, *[1] * (weight.dim() - 1))).to(dtype)


def _drop_scales(state_dict: dict[str, Tensor], layer: str) -> None:
    for suffix in SUFFIXES:
        state_dict.pop(layer + suffix, None)
