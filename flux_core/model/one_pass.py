"""For CPUs, where every pass over memory counts: norm and rotation of queries and keys as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .attention import Stream

EPS = 1e-6
"""Of every norm in FLUX.1."""

CHUNK = 64
"""Tokens that are normed and turned at a time: in float32, 0.8 MB at FLUX.1's width, they stay in the cache."""


def pays(x: Tensor) -> bool:
    """On a CPU, and where no gradient needs the values between."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def turned(streams: Sequence[Stream], pe: Tensor, needed: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the `needed` tokens and keys, normed and turned, and values; `(b, heads, tokens, head_dim)` each."""
    apart = [stream.split() for stream in streams]
    v = apart[0][2] if len(apart) == 1 else torch.cat([v for _, _, v in apart], dim=2)
    q, k = v.new_empty(v.shape), v.new_empty(v.shape)
    turns, start = torch.view_as_complex(pe[..., 0].contiguous()), 0
    for stream, (*raw, _) in zip(streams, apart, strict=True):
        part = slice(start, start + stream.qkv.shape[1])
        for x, weight, out in zip(raw, _weights(stream), (q, k), strict=True):
            _norm_and_turn(x, weight, turns[:, :, part].expand(len(x), -1, -1, -1), out[:, :, part])
        start = part.stop
    return q[:, :, needed], k, v


def _norm_and_turn(x: Tensor, weight: Tensor, turns: Tensor, out: Tensor) -> None:
    """out = x / rms(x) * weight, turned, in float32; `(b, heads, tokens, head_dim)`, turns complex, of half its width."""
    for sample in range(len(x)):
        for chunk in range(0, x.shape[2], CHUNK):
            here = (sample, slice(None), slice(chunk, chunk + CHUNK))
            now = torch.empty(x[here].shape, dtype=torch.float32).copy_(x[here])
            rms = torch.linalg.vector_norm(now, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).sqrt_()
            now.div_(rms).mul_(weight)
            torch.view_as_complex(now.unflatten(-1, (-1, 2))).mul_(turns[here])
            out[here] = now


def _weights(stream: Stream) -> list[Tensor]:
    """Of the norms of queries and keys, asked of them rather than read: they may lie elsewhere, cast or patched."""
    ones = stream.qkv.new_ones(1, stream.qkv.shape[-1] // (3 * stream.heads))
    return [normed.float() * math.sqrt(1 + EPS) for normed in stream.norm(ones, ones, ones)]
