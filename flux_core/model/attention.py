"""Rotary attention: from one or two streams' projections to what their tokens attended to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from . import one_pass


class Stream(NamedTuple):
    """One stream before attention: `(b, tokens, 3 * heads * head_dim)`, and the norm of its queries and keys."""

    qkv: Tensor
    norm: nn.Module
    heads: int

    def split(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v `(b, heads, tokens, head_dim)` each."""
        q, k, v = rearrange(self.qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return q, k, v


def joined(streams: Sequence[Stream], needed: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    """Normed q of the `needed` tokens, normed k, and v, of all streams in a row; `(b, heads, tokens, head_dim)` each."""
    apart = [stream.split() for stream in streams]
    normed = [(*stream.norm(q, k, v), v) for stream, (q, k, v) in zip(streams, apart, strict=True)]
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(*normed, strict=True))
    return q[:, :, needed], k, v


def turned(
    streams: Sequence[Stream], pe: Tensor, needed: slice = slice(None), by: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `joined`, with q and k turned by their positions `pe`: ready for attention. `by`: in place of `rotate`."""
    if one_pass.pays(streams[0].qkv):
        return one_pass.turned(streams, pe, needed)
    by = by or rotate
    q, k, v = joined(streams, needed)
    return by(q, pe[:, :, needed]), by(k, pe), v


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels of `(b, heads, tokens, head_dim)` by its position's angle."""
    pairs = rearrange(x.to(pe.dtype), "b h n (d two) -> b h n d 1 two", two=2)
    turned = pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]
    return turned.flatten(-2).to(x.dtype)


def attention(streams: Sequence[Stream], pe: Tensor, mask: Tensor | None = None, needed: slice = slice(None)) -> Tensor:
    """What the `needed` tokens of all streams in a row attend to: `(b, needed, heads * head_dim)`.

    `pe` and `mask` are of all tokens.
    """
    out = scaled_dot_product_attention(*turned(streams, pe, needed), attn_mask=for_queries(mask, needed))
    return rearrange(out, "b h n d -> b n (h d)")


def for_queries(mask: Tensor | None, needed: slice) -> Tensor | None:
    """Of a mask over all tokens, the rows of the `needed` ones."""
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., needed, :]


def finite_in_half(x: Tensor) -> Tensor:
    """Keep float16 activations, which overflow in FLUX.1, within float16's range; other dtypes pass untouched."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max
    return x.nan_to_num(nan=0.0, posinf=limit, neginf=-limit)
