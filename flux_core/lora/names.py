"""How trainers name things: a key of a LoRA file is a prefix, a layer of the transformer and a part of the LoRA.

    lora_unet_           double_blocks_0_img_attn_qkv           .lora_down.weight     kohya
    lora_transformer_    transformer_blocks_0_attn_to_q         .lora_down.weight     OneTrainer
    base_model.model.    double_blocks.0.img_attn.qkv           .lora_A.weight        PEFT on the released model
    transformer.         transformer_blocks.0.attn.to_q         .lora_A.weight        diffusers, ai-toolkit
                         double_blocks.0.img_attn.qkv           .lora_B.bias          BFL (control LoRAs)
                         double_blocks.0.processor.qkv_lora1    .down.weight          XLabs

Layers have BFL's, diffusers' or XLabs' names, with dots or with underscores; any prefix goes with any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from ..checkpoint.layers import FINAL_MODULATION, Layer, layers
from ..variants import FluxParams

PREFIX = re.compile(
    r"(?:model\.|diffusion_model\.|transformer\.|unet\.|base_model\.model\.|lora_unet[_.]|lora_transformer_|lycoris_)*"
)
TRAINERS = {"lora_unet": "kohya", "lora_transformer": "OneTrainer", "lycoris": "LyCORIS", "base_model": "PEFT"}
"""Whose key it is by its prefix; the other prefixes tell nothing, there the layer's name does."""

TEXT_ENCODER = re.compile(r"(lora_te\d?_|text_encoders?[._]|te\d?\.|clip_l\.|t5xxl\.)")

XLABS = {  # trained by XLabs (and by USO after them), by released name within a block
    "img_attn.qkv": "qkv_lora1",
    "img_attn.proj": "proj_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "txt_attn.proj": "proj_lora2",
    "linear1": "qkv_lora",  # without linear1's MLP
    "linear2": "proj_lora",
}

PARTS = {  # ComfyUI's spelling of each part, and every spelling in files
    "lora_down.weight": r"\.lora_(down|A)(\.\w+)?\.weight|\.lora_A|\.lora(_linear_layer)?\.down\.weight|\.down\.weight",
    "lora_up.weight": r"\.lora_(up|B)(\.\w+)?\.weight|\.lora_B|\.lora(_linear_layer)?\.up\.weight|\.up\.weight",
    "lora_up.bias": r"\.lora_(up|B)(\.\w+)?\.bias",
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale|\.lora_magnitude_vector(\.\w+)*",
    "reshape_weight": r"\.reshape_weight",
    "diff": r"\.(diff|w_norm)",
    "diff_b": r"\.diff_b",
    "set_weight": r"\.(set_weight|scale|weight)",
    **{name: rf"\.{name}" for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},  # LoHa
    **{name: rf"\.{name}" for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
}
_LAYER_AND_PART = re.compile(f"(.+?)({'|'.join(PARTS.values())})")
MAX_NAME = 256  # characters; more is no name, and would cost time in regular expressions


class Target(NamedTuple):
    """What a change is added to."""

    parameter: str
    """Its name in the transformer, `double_blocks.0.img_attn.qkv.weight`."""
    narrow: tuple[int, int, int] | None
    """(dimension, start, length) where it is not the whole of it."""
    swapped: bool
    """Whether the change's upper and lower half have to change places first."""


class Place(NamedTuple):
    """Where a layer's name points to: rows of a layer of the released transformer."""

    layer: Layer
    start: int
    rows: int
    style: str
    """Whose name it is: BFL, diffusers or XLabs."""

    @property
    def swapped(self) -> bool:
        return self.layer.name == FINAL_MODULATION and self.style == "diffusers"

    def target(self, kind: str, columns: int = 0) -> Target:
        """These rows of the layer's `kind`, weight or bias; of `columns` the first ones, where it has more."""
        if columns and columns < self.layer.columns:
            narrow = (1, 0, columns)
        else:
            narrow = (0, self.start, self.rows) if self.rows < sum(self.layer.rows) else None
        return Target(f"{self.layer.name}.{kind}", narrow, self.swapped)


class Key(NamedTuple):
    """A key of a LoRA file, understood."""

    place: Place
    part: str
    """One of PARTS."""
    dialect: str
    layer: str
    """The layer as the file names it, without prefix."""


def understood(name: str, params: FluxParams) -> Key | None:
    """What `name` means for a transformer with these sizes; None if it is no part of a LoRA on one of its layers."""
    prefix = PREFIX.match(name)[0]
    split = _LAYER_AND_PART.fullmatch(name, len(prefix)) if len(name) <= MAX_NAME else None
    if split is None or split[1] not in places(params):
        return None
    place = places(params)[split[1]]
    part = next(part for part, spellings in PARTS.items() if re.fullmatch(spellings, split[2]))
    if part == "set_weight" and not place.layer.is_norm:
        return None  # a whole weight, not a change of one
    trainer = next((trainer for mark, trainer in TRAINERS.items() if mark in prefix), place.style)
    return Key(place, part, trainer, split[1])


@cache
def places(params: FluxParams) -> dict[str, Place]:
    """Every name of every layer, with dots and with underscores."""
    named = [pair for layer in layers(params) for pair in _names(layer)]
    return {spelled: place for name, place in named for spelled in (name, name.replace(".", "_"))}


def _names(layer: Layer) -> Iterator[tuple[str, Place]]:
    yield layer.name, Place(layer, 0, sum(layer.rows), "BFL")
    starts = accumulate(layer.rows, initial=0)
    for source, start, rows in zip(layer.sources, starts, layer.rows, strict=False):
        yield source, Place(layer, start, rows, "diffusers")
    stack, number, within = [*layer.name.split(".", 2), "", ""][:3]
    if within in XLABS:
        yield f"{stack}.{number}.processor.{XLABS[within]}", Place(layer, 0, sum(layer.rows[:3]), "XLabs")
