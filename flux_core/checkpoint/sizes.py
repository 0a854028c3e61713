"""Reads a model's sizes from the shapes in its header.

Several tensors tell each size of the transformer; the most frequent answer counts, so that a single bad tensor is
later found to be the odd one out instead of bending everything else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from ..errors import Flux1Error
from ..variants import VARIANTS, FluxParams
from .header import Header, quoted, read_json
from .layers import OUTER
from .looks import Layout

RELEASED = VARIANTS["dev"].params
CLIP_HEAD_DIM = 64  # in every released CLIP; no shape tells it


class Names(NamedTuple):
    """Where one layout keeps what tells sizes: patterns of names, each with an example, and names as they are."""

    width: tuple[str, str]
    head_dim: tuple[str, str]
    mlp: tuple[str, str]
    double: str
    single: str
    qkv_bias: str
    guidance: str


NAMES = {
    "bfl": Names(
        width=(r"(img_in|txt_in|(time|vector|guidance)_in\.\w+)\.bias", "img_in.bias"),
        head_dim=(r".*\.(query|key)_norm\.(scale|weight)", "double_blocks.0.img_attn.norm.query_norm.scale"),
        mlp=(r"double_blocks\..*_mlp\.0\.(bias|weight)", "double_blocks.0.img_mlp.0.bias"),
        double="double_blocks",
        single="single_blocks",
        qkv_bias="_attn.qkv.bias",
        guidance="guidance_in.",
    ),
    "diffusers": Names(
        width=(r"(x_embedder|context_embedder|time_text_embed\..*)\.bias", "x_embedder.bias"),
        head_dim=(r".*\.attn\.norm_(added_)?[qk]\.weight", "transformer_blocks.0.attn.norm_q.weight"),
        mlp=(r"transformer_blocks\..*\.net\.0\.proj\.(bias|weight)", "transformer_blocks.0.ff.net.0.proj.bias"),
        double="transformer_blocks",
        single="single_transformer_blocks",
        qkv_bias=".attn.add_q_proj.bias",
        guidance="time_text_embed.guidance_embedder.",
    ),
}


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a text encoder; `inner` is the width of all heads together."""

    width: int
    layers: int
    mlp: int
    heads: int
    inner: int
    vocabulary: int


def flux_sizes(header: Header, prefix: str, layout: Layout) -> FluxParams:
    """The transformer's sizes from its shapes, or from the file's metadata where that says otherwise.

    Metadata keys: `flux1.head_dim`, `flux1.mlp_ratio` and `flux1.axes_dim` (a JSON list). Raises Flux1Error where
    the tensor that tells a size is missing, or metadata is malformed.
    """
    names = NAMES[layout]
    inside = {name.removeprefix(prefix): info for name, info in header.tensors.items() if name.startswith(prefix)}

    def vote(pattern: str, example: str) -> int:
        votes = Counter(i.shape[0] for name, i in inside.items() if re.fullmatch(pattern, name) and any(i.shape))
        return votes.most_common(1)[0][0] if votes else refuse_tensor(header, prefix + example, "[width]")

    def columns(layer: str) -> int:
        name = OUTER[layer] if layout == "diffusers" else layer
        return shape_of(header, f"{prefix}{name}.weight", "rows columns")[1]

    width = vote(*names.width)
    heads = _heads(header, width, _number(header, "flux1.head_dim") or vote(*names.head_dim))
    return FluxParams(
        in_channels=columns("img_in"),
        vec_in_dim=columns("vector_in.in_layer"),
        context_in_dim=columns("txt_in"),
        hidden_size=width,
        mlp_ratio=_number(header, "flux1.mlp_ratio") or vote(*names.mlp) / width,
        num_heads=heads,
        depth=count_blocks(inside, names.double),
        depth_single_blocks=count_blocks(inside, names.single),
        axes_dim=_axes(header, width // heads),
        qkv_bias=any(name.endswith(names.qkv_bias) for name in inside),
        guidance_embed=any(name.startswith(names.guidance) for name in inside),
    )


def t5_sizes(header: Header, prefix: str) -> TextSizes:
    """Sizes of a T5 encoder from its first block."""
    block = f"{prefix}encoder.block.0.layer."
    inner, width = shape_of(header, block + "0.SelfAttention.q.weight", "inner width")
    return TextSizes(
        width=width,
        layers=count_blocks(header.tensors, f"{prefix}encoder.block"),
        mlp=shape_of(header, block + "1.DenseReluDense.wo.weight", "width mlp")[1],
        heads=shape_of(header, block + "0.SelfAttention.relative_attention_bias.weight", "buckets heads")[1],
        inner=inner,
        vocabulary=shape_of(header, f"{prefix}shared.weight", "vocabulary width")[0],
    )


def clip_sizes(header: Header, prefix: str) -> TextSizes:
    """Sizes of a CLIP text encoder, in transformers' or OpenAI's names."""
    openai = any(name.startswith("transformer.resblocks.") for name in header.tensors)
    blocks = "transformer.resblocks" if openai else f"{prefix}text_model.encoder.layers"
    embedding = "token_embedding.weight" if openai else f"{prefix}text_model.embeddings.token_embedding.weight"
    mlp, width = shape_of(header, f"{blocks}.0.mlp.{'c_fc' if openai else 'fc1'}.weight", "mlp width")
    return TextSizes(
        width=width,
        layers=count_blocks(header.tensors, blocks),
        mlp=mlp,
        heads=max(1, width // CLIP_HEAD_DIM),
        inner=width,
        vocabulary=shape_of(header, embedding, "vocabulary width")[0],
    )


def count_blocks(names: Iterable[str], stack: str) -> int:
    """One more than the highest number after `stack`. A gap between counts, so that it is found missing later."""
    found = (re.match(re.escape(stack) + r"\.([0-9]{1,4})\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def shape_of(header: Header, name: str, sizes: str) -> tuple[int, ...]:
    """A tensor's shape, checked to have as many sizes, all above 0, as there are words in `sizes`."""
    info = header.tensors.get(name)
    if info is None or len(info.shape) != len(sizes.split()) or 0 in info.shape:
        refuse_tensor(header, name, f"[{', '.join(sizes.split())}]")
    return info.shape


def refuse_tensor(header: Header, name: str, shape: str) -> NoReturn:
    """Refuse a file for one tensor: missing, or not of this shape."""
    found = header.tensors.get(name)
    in_parts = re.search(r"-[0-9]{5}-of-[0-9]{5}", header.file)
    raise Flux1Error(
        f"A tensor {'has the wrong shape' if found else 'is missing'}: {name}",
        file=header.file,
        expected=f"{name} of shape {shape}",
        found=f"shape {list(found.shape)}" if found else "no tensor of that name",
        fix="this is one part of several: get the model as one file" if in_parts else "get the file again, whole",
    )


def _number(header: Header, key: str) -> float | None:
    """A positive number from the metadata, None where there is none of that name."""
    if key not in header.metadata:
        return None
    try:
        number = float(header.metadata[key])
    except ValueError:
        number = math.nan
    if not 0 < number < 2**20:
        _refuse_metadata(header, key, "a positive number")
    return number


def _heads(header: Header, width: int, head_dim: float) -> int:
    if head_dim % 1 or width % head_dim:
        _refuse_metadata(header, "flux1.head_dim", f"a whole number that divides {width}", found=f"{head_dim:g}")
    return int(width // head_dim)


def _axes(header: Header, head_dim: int) -> tuple[int, ...]:
    """Widths of the RoPE axes: the metadata's, or the released ones scaled to this head's width."""
    text = header.metadata.get("flux1.axes_dim")
    try:
        axes = read_json(text) if text else [axis * head_dim // sum(RELEASED.axes_dim) for axis in RELEASED.axes_dim]
    except ValueError:
        axes = None
    whole = isinstance(axes, list) and all(type(axis) is int and axis > 0 and axis % 2 == 0 for axis in axes)
    if not whole or len(axes) != len(RELEASED.axes_dim) or sum(axes) != head_dim:
        expected = f"a list of {len(RELEASED.axes_dim)} even widths with the sum {head_dim}"
        _refuse_metadata(header, "flux1.axes_dim", expected, found=text or f"none, and {axes} can't be guessed from")
    return tuple(axes)


def _refuse_metadata(header: Header, key: str, expected: str, found: str | None = None) -> NoReturn:
    raise Flux1Error(
        f"The file's metadata {key} doesn't fit",
        file=header.file,
        expected=f"{key} = {expected}",
        found=quoted(found or header.metadata[key]),
        fix=f"write {key} into the safetensors metadata as the model was trained, or get the file again",
    )
