"""What the parts of a LoRA on one layer change, and whether that fits the layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ..checkpoint.header import quoted
from ..errors import Flux1Error
from ..variants import VARIANTS, FluxParams
from .names import Place, Target

COMPLETE = (  # the parts that make a change of a weight; any one set will do
    ("lora_up.weight", "lora_down.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *(first + second for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
      for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))),
    ("diff",),
    ("set_weight",),
)  # fmt: skip


class Change(NamedTuple):
    target: Target
    tensors: dict[str, Tensor]
    """{part: tensor}, as ComfyUI names the parts."""
    used: set[str]
    """The file's parts that are in it."""


def changes(
    place: Place, parts: Mapping[str, Tensor], names: Mapping[str, str], params: FluxParams, file: str
) -> Iterator[Change]:
    """What a layer's parts change: its weight, its bias, or both; nothing where half of them are missing.

    `parts` and `names` are the tensors and their names in the file, by part. Raises Flux1Error where a change has
    another shape than the layer.
    """
    complete = next((kind for kind in COMPLETE if all(part in parts for part in kind)), None)
    if complete:
        factors = {part: parts[part] for part in complete}
        rows, columns = _shape(factors)
        wide = _is_wider(place, columns, params) and "lora_up.weight" in factors
        fits = columns == place.layer.columns or wide or _is_narrower(place, columns, params)
        if rows != place.rows or not fits:
            sizes = " and ".join(str(list(factor.shape)) for factor in factors.values())
            product = f", together {[rows, columns]}" if len(factors) > 1 and rows >= 0 else ""
            _refuse_shape(place, names[complete[0]], [place.rows, place.layer.columns], sizes + product, file)
        scales = {part: parts[part] for part in ("alpha", "dora_scale") if part in parts}
        if "dora_scale" in scales and scales["dora_scale"].ndim == 1:  # PEFT's: one number a row
            scales["dora_scale"] = scales["dora_scale"][:, None]
        widening = {"reshape_weight": torch.tensor([rows, columns])} if wide else {}
        used = {*factors, "alpha", "dora_scale", "reshape_weight"}
        yield Change(place.target("weight", columns), factors | scales | widening, used)
    bias = _bias(parts)
    if bias is not None and place.layer.bias and not place.layer.is_norm:
        part = "diff_b" if "diff_b" in parts else "lora_up.bias"
        if tuple(bias.shape) != (place.rows,):
            _refuse_shape(place, names[part], [place.rows], str(list(bias.shape)), file)
        yield Change(place.target("bias"), {"diff": bias}, {part, "alpha"})


def _bias(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The change of the bias: `diff_b` as it is, the bias of a LoRA's upper half scaled as that is."""
    if "diff_b" in parts or "lora_up.bias" not in parts:
        return parts.get("diff_b")
    if "alpha" not in parts or "lora_down.weight" not in parts:
        return parts["lora_up.bias"]
    return parts["lora_up.bias"] * (parts["alpha"].item() / len(parts["lora_down.weight"]))


def _shape(parts: Mapping[str, Tensor]) -> tuple[int, int]:
    """Rows and columns of the change that these parts make; (-1, -1) where they don't go together. 0 columns: a norm's.

    LoRA is up @ down; LoHa the elementwise product of two of these; LoKr the Kronecker product of two, each of which
    may be a product itself.
    """
    match parts:
        case {"lora_up.weight": up, "lora_down.weight": down}:
            return _product(up, down)
        case {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}:
            return _product(a, b) if _product(a, b) == _product(c, d) else (-1, -1)
        case {"diff": change} | {"set_weight": change}:
            return (*change.shape, 0)[:2] if change.ndim in (1, 2) else (-1, -1)
    first, second = (
        _product(parts[f"{w}_a"], parts[f"{w}_b"]) if f"{w}_a" in parts else tuple(parts[w].shape)
        for w in ("lokr_w1", "lokr_w2")
    )
    if len(first) != 2 or len(second) != 2 or min(*first, *second) < 0:
        return -1, -1
    return first[0] * second[0], first[1] * second[1]


def _product(up: Tensor, down: Tensor) -> tuple[int, int]:
    """Of a matrix product; some trainers write the factors as 1 x 1 convolutions."""
    if min(up.ndim, down.ndim) < 2 or up.shape[1] != down.shape[0] or math.prod((*up.shape[2:], *down.shape[2:])) != 1:
        return -1, -1
    return up.shape[0], down.shape[1]


def _is_wider(place: Place, columns: int, params: FluxParams) -> bool:
    """A LoRA on img_in that makes a model which sees the noisy picture alone see more: a control picture, or Fill's."""
    known = {variant.params.in_channels for variant in VARIANTS.values()}
    return place.layer.name == "img_in" and params.in_channels == params.out_channels < columns and columns in known


def _is_narrower(place: Place, columns: int, params: FluxParams) -> bool:
    """A LoRA on img_in of a model that saw the noisy picture alone: in every variant these are the first channels."""
    return place.layer.name == "img_in" and columns == params.out_channels


def _refuse_shape(place: Place, name: str, expected: list[int], found: str, file: str) -> NoReturn:
    raise Flux1Error(
        f"The LoRA doesn't fit the model: {quoted(name)}",
        file=file,
        expected=f"a change of {place.layer.name} of shape {expected}",
        found=f"shape {found}",
        fix="choose a LoRA made for this FLUX.1 model: sizes and input channels differ between some of them",
    )
