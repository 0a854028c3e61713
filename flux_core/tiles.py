"""A latent in overlapping tiles: where they lie, and how their results become one without a seam."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import PATCH


@dataclass(frozen=True)
class Tile:
    """A rectangle of latent cells, whole tokens in both directions."""

    top: int
    left: int
    height: int
    width: int

    def of(self, latent: Tensor) -> Tensor:
        """The tile's part of `(..., h, w)`."""
        return latent[..., self.top : self.top + self.height, self.left : self.left + self.width]


def tiles_over(height: int, width: int, size: int, overlap: int) -> list[Tile]:
    """Tiles of at most `size` cells a side that cover `height` x `width` cells, neighbours sharing at least `overlap`.

    All are of one size, so of one shift and one compiled graph; the last of a row ends where the picture does. Raises
    ValueError when the overlap leaves no room to advance.
    """
    if not 0 <= overlap <= size - PATCH:
        raise ValueError(f"the overlap must be at least {PATCH} cells less than the tile of {size}, not {overlap}")
    rows, columns = _starts(height, size, overlap), _starts(width, size, overlap)
    return [Tile(top, left, min(size, height), min(size, width)) for top in rows for left in columns]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Evenly spread and on whole tokens."""
    if length <= size:
        return [0]
    steps = -(-(length - size) // (size - overlap))
    last = length - size
    return [round(last * i / steps / PATCH) * PATCH for i in range(steps)] + [last]


def window(tile: Tile, height: int, width: int, overlap: int) -> Tensor:
    """The tile's weights `(h, w)`: 1 inside and along the picture's edge, falling to almost 0 where neighbours overlap."""
    down = _ramps(tile.height, tile.top > 0, tile.top + tile.height < height, overlap)
    across = _ramps(tile.width, tile.left > 0, tile.left + tile.width < width, overlap)
    return down[:, None] * across


def _ramps(length: int, at_start: bool, at_end: bool, overlap: int) -> Tensor:
    weights, ramp = torch.ones(length), (torch.arange(overlap) + 0.5) / max(overlap, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)  # so that not even the slope has a step
    if at_start and overlap:
        weights[:overlap] = smooth
    if at_end and overlap:
        weights[-overlap:] = torch.minimum(weights[-overlap:], smooth.flip(0))
    return weights


def blended(parts: Iterable[tuple[Tile, Tensor]], like: Tensor, overlap: int) -> Tensor:
    """The parts' weighted mean, of the shape of `like` `(..., h, w)`; only one part is held at a time."""
    height, width = like.shape[-2:]
    total, weights = torch.zeros_like(like), like.new_zeros(height, width)
    for tile, part in parts:
        weight = window(tile, height, width, overlap).to(like)
        tile.of(total).add_(part * weight)
        tile.of(weights).add_(weight)
    return total / weights
