"""Rotary attention."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels of `(b, heads, tokens, head_dim)` by its position's angle."""
    pairs = rearrange(x.to(pe.dtype), "b h n (d two) -> b h n d 1 two", two=2)
    turned = pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]
    return turned.flatten(-2).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None = None, first_query: int = 0) -> Tensor:
    """Attention with rotary positions: q, k, v `(b, heads, tokens, head_dim)` to `(b, queries, heads * head_dim)`.

    `q` may have fewer tokens than `k` and `v`: those from `first_query` on. `pe` and `mask` are always of all tokens.
    """
    q_pe, mask = for_queries(q, pe, mask, first_query)
    out = scaled_dot_product_attention(rotate(q, q_pe), rotate(k, pe), v, attn_mask=mask)
    return rearrange(out, "b h n d -> b n (h d)")


def for_queries(q: Tensor, pe: Tensor, mask: Tensor | None, first_query: int) -> tuple[Tensor, Tensor | None]:
    """Of all tokens' positions and mask rows, those of the queries in `q`."""
    queries = slice(first_query, first_query + q.shape[2])
    return pe[:, :, queries], mask if mask is None or mask.shape[-2] == 1 else mask[..., queries, :]


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """`(b, tokens, 3 * heads * head_dim)` to q, k, v `(b, heads, tokens, head_dim)` each."""
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
    return q, k, v


def finite_in_half(x: Tensor) -> Tensor:
    """Keep float16 activations, which overflow in FLUX.1, within float16's range; other dtypes pass untouched."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max
    return x.nan_to_num(nan=0.0, posinf=limit, neginf=-limit)
