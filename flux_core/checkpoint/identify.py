"""Says what a safetensors file is, from its header: kind, layout, sizes, number format, and one line for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..variants import FluxParams, variants_like
from .fp8 import fp8_layout
from .header import DTYPES, Header, TensorInfo
from .looks import BUNDLED, Kind, Layout, look_at, lora_family
from .sizes import TextSizes, clip_sizes, flux_sizes, shape_of, t5_sizes

FP8_DTYPES = ("F8_E4M3", "F8_E5M2")
WORDS = {"F8_E4M3": "fp8 e4m3", "F8_E5M2": "fp8 e5m2", "BF16": "bf16", "F16": "fp16", "F32": "fp32"}
FP8_WORDS = {"a": "plain", "b": "scaled", "c": "scaled", "d": "scaled", "e": "scaled, without markers"}
LAYOUT_WORDS = {"bfl": "BFL layout", "diffusers": "diffusers layout"}
SCALES = re.compile(r"(.*\.)?(weight_scale(_2)?|input_scale|scale_weight|scale_input|comfy_quant|scaled_fp8)")
CLIP_H_LAYERS = 24  # ComfyUI tells them apart likewise: CLIP-L has 12 layers, CLIP-H 24, CLIP-G 32
CLIP_G_LAYERS = 32


@dataclass(frozen=True)
class Checkpoint:
    """What a file is. Fields that its kind has no use for are None."""

    header: Header
    kind: Kind
    what: str
    """A short name for people: "FLUX.1 Fill transformer"."""
    prefix: str = ""
    """What stands in front of its tensors' names."""
    layout: Layout | None = None
    variant: str | None = None
    """A transformer's variant as shapes and, between twins, the file's name tell it; None where none fits."""
    params: FluxParams | None = None
    text: TextSizes | None = None
    latent_channels: int | None = None

    @property
    def file(self) -> str:
        return self.header.file

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """{safetensors' dtype: parameters}, the most frequent first, without scales and markers."""
        count: Counter[str] = Counter()
        for name, info in self.header.tensors.items():
            if name.startswith(self.prefix) and not SCALES.fullmatch(name):
                count[info.dtype] += info.parameters
        return dict(count.most_common())

    @property
    def parameters(self) -> int:
        return sum(self.dtypes.values())

    @cached_property
    def fp8(self) -> str | None:
        """Its fp8 layout, "a" to "e" as fp8.py tells them, or None."""
        names = [name for name in self.header.tensors if name.startswith(self.prefix)]
        return fp8_layout(names, any(dtype in self.dtypes for dtype in FP8_DTYPES), self.header.metadata)

    @property
    def description(self) -> str:
        """One line: "FLUX.1 Fill transformer, BFL layout, 11.9 B parameters, bf16, 19+38 blocks"."""
        dtype = next(iter(self.dtypes), "nothing inside")
        number = WORDS.get(dtype, dtype) + (f" {FP8_WORDS[self.fp8]}" if self.fp8 else "")
        layout = LAYOUT_WORDS.get(self.layout)
        parts = (self.what, layout, f"{_rounded(self.parameters)} parameters", number, self._sizes())
        return ", ".join(part for part in parts if part)

    def _sizes(self) -> str:
        if self.params:
            return f"{self.params.depth}+{self.params.depth_single_blocks} blocks"
        if self.text:
            return f"width {self.text.width}, {self.text.layers} layers"
        return f"{self.latent_channels} latent channels" if self.latent_channels else ""


def identify(header: Header, name: str | None = None) -> Checkpoint:
    """What the file with this header is.

    Shapes decide wherever they can. Between twins (canny and depth; dev, krea and kontext) the file's `name`, by
    default the header's own, gives a first guess; the last word is the user's. Raises Flux1Error where a tensor
    that a size is read from is missing or misshapen.
    """
    look, prefix = look_at(header.tensors)
    match look.kind if look else "unknown":
        case "unknown":
            return Checkpoint(header, "unknown", "file of an unknown kind")
        case "transformer":
            return _transformer(header, prefix, look.layout, name or header.file)
        case "t5":
            return _t5(header, prefix)
        case "clip_l":
            return _clip(header, prefix)
        case "autoencoder":
            return _autoencoder(header, prefix)
        case "lora":
            return Checkpoint(header, "lora", f"{lora_family(header.tensors)} {look.what}".strip())
        case kind:
            return Checkpoint(header, kind, look.what)


def header_of(
    state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, file: str = "tensors in memory"
) -> Header:
    """The header that a file with these tensors would have."""
    spelling = {dtype: name for name, dtype in DTYPES.items()}
    tensors = {name: TensorInfo(spelling[t.dtype], tuple(t.shape), t.nbytes) for name, t in state_dict.items()}
    return Header(file, tensors, metadata or {})


def _rounded(count: int) -> str:
    """11901408320 as "11.9 B"."""
    power, unit = next(((power, unit) for power, unit in ((9, " B"), (6, " M")) if count >= 10**power), (0, ""))
    return f"{count / 10**power:.{1 if power else 0}f}{unit}"


def _transformer(header: Header, prefix: str, layout: Layout, file: str) -> Checkpoint:
    if not any(name.startswith((prefix + "vector_in.", prefix + "time_text_embed.")) for name in header.tensors):
        return Checkpoint(header, "other", "relative of FLUX.1 without CLIP input, such as LongCat-Image")
    params = flux_sizes(header, prefix, layout)
    variant = likely_variant(params, file)
    what = f"FLUX.1 {variant.capitalize()} transformer" if variant else "FLUX.1-like transformer"
    if any(name.startswith(BUNDLED) for name in header.tensors):
        return Checkpoint(header, "checkpoint", f"all-in-one checkpoint with a {what}", prefix, layout, variant, params)
    return Checkpoint(header, "transformer", what, prefix, layout, variant, params)


def likely_variant(params: FluxParams, file: str) -> str | None:
    """The first variant with these shapes, or the one of its twins that the file's name mentions.

    Names of Krea and Kontext files say "dev" too, so dev is what is left when no other is mentioned.
    """
    first, *twins = variants_like(params) or [None]
    return next((name for name in twins if name in file.lower()), first)


def _t5(header: Header, prefix: str) -> Checkpoint:
    blocks = f"{prefix}encoder.block."
    if f"{blocks}1.layer.0.SelfAttention.relative_attention_bias.weight" in header.tensors:
        return Checkpoint(header, "other", "UMT5 text encoder (Wan's)")
    if any(name.endswith("DenseReluDense.wi.weight") for name in header.tensors):
        return Checkpoint(header, "other", "T5 1.0 text encoder, not the 1.1 that FLUX.1 uses")
    return Checkpoint(header, "t5", "T5 text encoder", prefix, text=t5_sizes(header, prefix))


def _clip(header: Header, prefix: str) -> Checkpoint:
    sizes = clip_sizes(header, prefix)
    if sizes.layers >= CLIP_G_LAYERS:
        return Checkpoint(header, "clip_g", "CLIP-G text encoder (SDXL's second)", prefix, text=sizes)
    if sizes.layers >= CLIP_H_LAYERS:
        return Checkpoint(header, "other", "CLIP-H text encoder (Stable Diffusion 2's)", prefix, text=sizes)
    return Checkpoint(header, "clip_l", "CLIP-L text encoder", prefix, text=sizes)


def _autoencoder(header: Header, prefix: str) -> Checkpoint:
    """A 2-D VAE, in BFL's or diffusers' names: both call the decoder's first layer alike."""
    name = f"{prefix}decoder.conv_in.weight"
    if name in header.tensors and len(header.tensors[name].shape) == 5:
        return Checkpoint(header, "other", "video VAE (autoencoder)")
    channels = shape_of(header, name, "width latent-channels rows columns")[1]
    return Checkpoint(header, "autoencoder", "VAE (autoencoder)", prefix, latent_channels=channels)
