"""Reads a LoRA of any dialect, refuses one of another model, and says of every key what became of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from ..checkpoint.header import Header, quoted
from ..checkpoint.looks import look_at, lora_family
from ..errors import Flux1Error
from ..variants import VARIANTS, FluxParams
from .alphas import Alphas
from .fit import changes
from .names import TEXT_ENCODER, Key, Place, Target, understood

LARGEST = VARIANTS["dev"].params
CONTROL_CHANNELS = VARIANTS["canny"].params.in_channels
CONTROL_STRENGTH = 0.85
"""Of the control LoRAs in Black Forest Labs' code; all others are meant for 1."""

NOT_CONNECTED = "of a text encoder, no CLIP connected"
NOT_IN_CLIP = "of a text encoder, none that the CLIP has"
NO_LAYER = "unknown, or for a layer that this model lacks"
INCOMPLETE = "without the other half"
TWICE = "in the file twice, by two names"


@dataclass(frozen=True)
class Lora:
    """A LoRA ready to be added to a model of the sizes it was read for."""

    file: str
    tensors: Mapping[str, Tensor]
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
            lines.append(f"{count} ignored, {why} ({quoted(example)})")
        return "; ".join(lines)


def expect_lora(header: Header) -> None:
    """Raise Flux1Error where the names alone tell that the file can do nothing for a FLUX.1 transformer."""
    _keys(header.tensors, LARGEST, header.file)


def is_control(header: Header) -> bool:
    """Whether it makes a model see a control picture: it reads as many input channels as Canny and Depth."""
    keys, _ = _keys(header.tensors, LARGEST, header.file)
    return any(_sees_control(key, header.tensors[name].shape) for name, key in keys.items())


def width_of(header: Header) -> int | None:
    """The width of the transformer that it was made for, as most of its upper halves tell; None where it has none."""
    keys, _ = _keys(header.tensors, LARGEST, header.file)
    votes = Counter(
        LARGEST.hidden_size * header.tensors[name].shape[0] // key.place.rows
        for name, key in keys.items()
        if key.part == "lora_up.weight" and header.tensors[name].shape
    )
    return votes.most_common(1)[0][0] if votes else None


def read_lora(
    state_dict: Mapping[str, Tensor], params: FluxParams, metadata: Mapping[str, str] | None = None, file: str = "LoRA"
) -> Lora:
    """The LoRA in `state_dict` for a transformer with these sizes, whatever trainer named its keys.

    `params.in_channels` are the channels the model has by now: a LoRA before this one may have widened it. Nothing is
    copied but biases that an alpha scales. Raises Flux1Error for a LoRA of another model, and for the first change
    that doesn't fit its layer.
    """
    keys, text = _keys(state_dict, params, file)
    alphas = Alphas(metadata or {}, file)
    groups: dict[Place, dict[str, tuple[str, Key]]] = defaultdict(dict)
    ignored = {name: NO_LAYER for name in state_dict.keys() - keys.keys() - set(text)}
    for name, key in keys.items():
        place = key.place._replace(style="")  # one place, whoever names it
        if key.part in groups[place]:
            ignored[name] = TWICE
        else:
            groups[place][key.part] = name, key

    tensors, targets, loaded, widened = {}, {}, Counter(), None
    for named in groups.values():
        first = next(iter(named.values()))[1]
        parts = {part: state_dict[name] for part, (name, _) in named.items()}
        if "lora_down.weight" in parts and "alpha" not in parts:
            alpha = alphas.of(first.layer, len(parts["lora_down.weight"]))
            parts |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
        used: set[str] = set()
        for change in changes(first.place, parts, {part: name for part, (name, _) in named.items()}, params, file):
            label = f"{change.target.parameter} {change.target.narrow}"
            targets[label] = change.target
            tensors |= {f"{label}.{part}": tensor for part, tensor in change.tensors.items()}
            used |= change.used
            if "reshape_weight" in change.tensors:
                widened = params.in_channels, int(change.tensors["reshape_weight"][1])
        for part, (name, key) in named.items():
            if part in used:
                loaded[key.dialect] += 1
            else:
                ignored[name] = INCOMPLETE
    if not targets:
        _refuse_empty(state_dict, file)
    return Lora(
        file, tensors, targets, {name: state_dict[name] for name in text}, loaded, ignored, widened,
        is_control=any(_sees_control(key, tuple(state_dict[name].shape)) for name, key in keys.items()),
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


def _sees_control(key: Key, shape: tuple[int, ...]) -> bool:
    return key.place.layer.name == "img_in" and len(shape) == 2 and shape[1] == CONTROL_CHANNELS


def _refuse_empty(names: Iterable[str], file: str) -> NoReturn:
    names = list(names)
    look, _ = look_at(names)
    what = look.what if look else "a file of an unknown kind"
    family = lora_family(names)
    example = quoted(min(names)) if names else "nothing"
    raise Flux1Error(
        f"0 of {len(names)} keys can be loaded: this is no LoRA for FLUX.1",
        file=file,
        expected="a LoRA of FLUX.1's transformer",
        found=f"{f'{family} {what}'.strip()}, keys such as {example}",
        fix="choose a LoRA made for FLUX.1"
        + (f", or use this one with {family}" if family not in ("", "FLUX") else ""),
    )
