"""Reads a LoRA of any dialect, refuses what does not fit the model, and says of every key what became of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ..checkpoint.header import Header, quoted, read_json
from ..checkpoint.looks import look_at, lora_family
from ..errors import Flux1Error
from ..variants import VARIANTS, FluxParams
from .names import TEXT_ENCODER, Key, Place, Target, understood

LARGEST = VARIANTS["dev"].params
CONTROL_CHANNELS = VARIANTS["canny"].params.in_channels
CONTROL_STRENGTH = 0.85
"""Of the control LoRAs in Black Forest Labs' code; all others are meant for 1."""

METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's configuration, if that is not the default

NOT_CONNECTED = "of a text encoder, no CLIP connected"
NOT_IN_CLIP = "of a text encoder, none that the CLIP has"
NO_LAYER = "of no layer that this model has"
INCOMPLETE = "without the other half"
TWICE = "in the file twice, by two names"

COMPLETE = (  # the parts that make a change of a weight; any one set will do
    ("lora_up.weight", "lora_down.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *(first + second for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
      for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))),
    ("diff",),
    ("set_weight",),
)  # fmt: skip


@dataclass(frozen=True)
class Lora:
    """A LoRA ready to be added to a model of the sizes it was read for."""

    file: str
    changes: Mapping[str, Tensor]
    """{label.part: tensor}; a label is one of `targets`, the parts are named as in `names.PARTS`."""
    targets: Mapping[str, Target]
    text: Mapping[str, Tensor]
    """The text encoders' keys, as they are in the file."""
    loaded: Counter[str] = field(default_factory=Counter)
    """{dialect: keys}"""
    ignored: Mapping[str, str] = field(default_factory=dict)
    """{key: why}; the text encoders' keys are not among them."""
    widened: tuple[int, int] | None = None
    """Input channels of the model before and after."""
    is_control: bool = False

    @property
    def preset(self) -> float:
        """The strength that such LoRAs are made for."""
        return CONTROL_STRENGTH if self.is_control else 1.0

    def report(self, strength: float, in_clip: Iterable[str] | None = None) -> str:
        """One line about what was loaded, what not and why; `in_clip` are the keys that a CLIP took, if there is one."""
        taken, ignored = set(in_clip or ()), dict(self.ignored)
        ignored |= {name: NOT_CONNECTED if in_clip is None else NOT_IN_CLIP for name in self.text.keys() - taken}
        loaded = self.loaded + Counter({"text encoder": len(taken)})
        by_dialect = ", ".join(f"{dialect} {count}" for dialect, count in loaded.items())
        kind = "control LoRA" if self.is_control else "LoRA"
        lines = [
            f"{kind} at strength {strength:g}" + (", no change" if strength == 0 else ""),
            f"{loaded.total()} of {loaded.total() + len(ignored)} keys loaded ({by_dialect})",
        ]
        if self.widened:
            lines.append("img_in widened from {} to {} channels".format(*self.widened))
        for why, count in Counter(ignored.values()).items():
            example = min(name for name, reason in ignored.items() if reason == why)
            lines.append(f"{count} ignored, {why} ({quoted(example)[1:-1]})")
        return "; ".join(lines)


def expect_lora(header: Header) -> None:
    """Raise Flux1Error where the names alone tell that the file can do nothing for a FLUX.1 transformer."""
    _keys(header.tensors, LARGEST, header.file)


def read_lora(
    state_dict: Mapping[str, Tensor], params: FluxParams, metadata: Mapping[str, str] | None = None, file: str = "LoRA"
) -> Lora:
    """The LoRA in `state_dict` for a transformer with these sizes, whatever trainer named its keys.

    `params.in_channels` are the channels the model has by now: a LoRA before this one may have widened it. Nothing is
    copied but biases that an alpha scales. Raises Flux1Error for a LoRA of another model, and for the first change
    that doesn't fit its layer.
    """
    keys, text = _keys(state_dict, params, file)
    alphas = _Alphas(metadata or {}, file)
    groups: dict[Place, dict[str, tuple[str, Key]]] = defaultdict(dict)
    ignored = {name: NO_LAYER for name in state_dict.keys() - keys.keys() - set(text)}
    for name, key in keys.items():
        place = key.place._replace(style="")  # one place, whoever names it
        if key.part in groups[place]:
            ignored[name] = TWICE
        else:
            groups[place][key.part] = name, key

    changes, targets, loaded, widened = {}, {}, Counter(), None
    for named in groups.values():
        key = next(iter(named.values()))[1]
        parts = {part: state_dict[name] for part, (name, _) in named.items()}
        if "alpha" not in parts and (alpha := alphas.of(key, parts)) is not None:
            parts["alpha"] = torch.tensor(alpha)
        of_layer = _changes(key.place, parts, {part: name for part, (name, _) in named.items()}, params, file)
        used: set[str] = set()
        for target, change in of_layer:
            label = f"{target.parameter} {target.narrow}"
            targets[label] = target
            changes |= {f"{label}.{part}": tensor for part, tensor in change.tensors.items()}
            used |= change.used
            if "reshape_weight" in change.tensors:
                widened = key.place.layer.columns, int(change.tensors["reshape_weight"][1])
        for part, (name, key) in named.items():
            if part in used:
                loaded[key.dialect] += 1
            else:
                ignored[name] = INCOMPLETE
    if not changes:
        _refuse_empty(state_dict, file)
    return Lora(
        file, changes, targets, {name: state_dict[name] for name in text}, loaded, ignored, widened,
        is_control=any(_sees_control(key, state_dict[name]) for name, key in keys.items()),
    )  # fmt: skip


def _keys(names: Iterable[str], params: FluxParams, file: str) -> tuple[dict[str, Key], list[str]]:
    """The keys that change the transformer, and the names of those that change a text encoder."""
    names = list(names)
    keys = {name: key for name in names if (key := understood(name, params))}
    family = lora_family(names)
    only_replaces = all(key.part == "set_weight" for key in keys.values())  # as a whole model's norms would
    if only_replaces or family not in ("", "FLUX"):
        _refuse_empty(names, file)
    return keys, [name for name in names if name not in keys and TEXT_ENCODER.match(name)]


def _sees_control(key: Key, tensor: Tensor) -> bool:
    return key.place.layer.name == "img_in" and tensor.ndim == 2 and tensor.shape[1] == CONTROL_CHANNELS


class _Change(NamedTuple):
    tensors: dict[str, Tensor]
    """{part: tensor}, as ComfyUI names the parts."""
    used: set[str]
    """The file's parts that are in it."""


def _changes(
    place: Place, parts: dict[str, Tensor], names: dict[str, str], params: FluxParams, file: str
) -> Iterator[tuple[Target, _Change]]:
    """What a layer's parts change: its weight, its bias, or both. Nothing where half of them are missing."""
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
        yield (
            place.target("weight", columns),
            _Change(factors | scales | widening, {*factors, "alpha", "dora_scale", "reshape_weight"}),
        )
    bias = _bias(parts)
    if bias is not None and place.layer.bias and not place.layer.is_norm:
        part = "diff_b" if "diff_b" in parts else "lora_up.bias"
        if tuple(bias.shape) != (place.rows,):
            _refuse_shape(place, names[part], [place.rows], str(list(bias.shape)), file)
        yield place.target("bias"), _Change({"diff": bias}, {part, "alpha"})


def _bias(parts: dict[str, Tensor]) -> Tensor | None:
    """The change of the bias: `diff_b` as it is, the bias of a LoRA's upper half scaled as that is."""
    if "diff_b" in parts or "lora_up.bias" not in parts:
        return parts.get("diff_b")
    if "alpha" not in parts or "lora_down.weight" not in parts:
        return parts["lora_up.bias"]
    return parts["lora_up.bias"] * (parts["alpha"].item() / len(parts["lora_down.weight"]))


def _shape(parts: dict[str, Tensor]) -> tuple[int, int]:
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
        f"The LoRA doesn't fit the model: {quoted(name)[1:-1]}",
        file=file,
        expected=f"a change of {place.layer.name} of shape {expected}",
        found=f"shape {found}",
        fix="choose a LoRA made for this FLUX.1 model: sizes and input channels differ between some of them",
    )


def _refuse_empty(names: Iterable[str], file: str) -> NoReturn:
    names = list(names)
    look, _ = look_at(names)
    what = look.what if look else "a file of an unknown kind"
    family = lora_family(names)
    example = quoted(min(names))[1:-1] if names else "nothing"
    raise Flux1Error(
        f"0 of {len(names)} keys can be loaded: this is no LoRA for FLUX.1",
        file=file,
        expected="a LoRA of FLUX.1's transformer",
        found=f"{f'{family} {what}'.strip()}, keys such as {example}",
        fix="choose a LoRA made for FLUX.1"
        + (f", or use this one with {family}" if family not in ("", "FLUX") else ""),
    )


class _Alphas:
    """The alphas that diffusers writes into the header's metadata, for keys without one of their own."""

    def __init__(self, metadata: Mapping[str, str], file: str):
        try:
            config = read_json(metadata.get(METADATA, "{}"))
            own = {name.removeprefix("transformer."): value for name, value in config.items()}
            self.alpha = own.get("lora_alpha")
            self.patterns = {name: float(value) for name, value in (own.get("alpha_pattern") or {}).items()}
            self.by_root = bool(own.get("use_rslora"))
            self.alpha = None if self.alpha is None else float(self.alpha)
        except (ValueError, TypeError, AttributeError):
            raise Flux1Error(
                f"The LoRA's metadata {METADATA} is malformed",
                file=file,
                expected="PEFT's configuration as JSON",
                found=quoted(metadata[METADATA]),
                fix="get the file again from its source",
            ) from None

    def of(self, key: Key, parts: dict[str, Tensor]) -> float | None:
        """ComfyUI divides an alpha by the rank; rsLoRA (arXiv 2312.03732) by the rank's root."""
        down = parts.get("lora_down.weight")
        if down is None or self.alpha is None:
            return None
        alpha = next((a for name, a in self.patterns.items() if f".{key.layer}".endswith(f".{name}")), self.alpha)
        return alpha * math.sqrt(len(down)) if self.by_root else alpha
