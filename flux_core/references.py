"""Kontext's references: how many tokens each may take, and how much it counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .image import TOKEN


def tokens_of(size: tuple[int, int], scale: float = 1.0) -> int:
    """Tokens of a picture of (width, height), each side scaled and rounded to whole ones."""
    return math.prod(max(1, round(side * scale / TOKEN)) for side in size)


def scale_within(size: tuple[int, int], scale: float, budget: int) -> float:
    """`scale`, or so much less that a picture of (width, height) has at most `budget` tokens; 0 is no limit."""
    while budget and tokens_of(size, scale) > max(1, budget):
        scale *= 0.99
    return scale


def weighed(
    mask: Tensor | None, weights: Sequence[float], counts: Sequence[int], before: int, like: Tensor
) -> Tensor | None:
    """The attention mask with which each reference is seen as if its tokens were there `weight` times.

    For that, log(weight) is added to the logits of its tokens as keys. `mask` `(b, n, n)` or None, and the result, are
    over `before` tokens of text and picture, then `counts` of each reference. Weights that are not given are 1; where all
    are 1, the mask is the one given. `like` says device and dtype.
    """
    if all(weight == 1 for weight in weights):
        return mask
    bias = like.new_zeros(1, 1, before + sum(counts))
    given = [*weights, *[1.0] * (len(counts) - len(weights))]
    for part, weight in zip(bias[..., before:].split(list(counts), dim=-1), given, strict=True):
        part.fill_(math.log(weight) if weight > 0 else torch.finfo(bias.dtype).min)
    return bias if mask is None else mask + bias
