"""Latents to tokens and back, and the (image, row, column) position of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

PATCH = 2
"""Side, in latent cells, of the square that becomes one token."""

Placement = Literal["offset", "index", "uxo", "canvas"]


def pad_to_patch(latent: Tensor) -> Tensor:
    """Repeat the last row and column of `(b, c, h, w)` where h or w is odd, so that no edge sees the opposite one."""
    return pad(latent, (0, latent.shape[-1] % PATCH, 0, latent.shape[-2] % PATCH), mode="replicate")


def pack(latent: Tensor) -> Tensor:
    """`(b, c, h, w)` latent cells to `(b, ceil(h/2) * ceil(w/2), 4c)` tokens, row by row."""
    return rearrange(pad_to_patch(latent), "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=PATCH, pw=PATCH)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for a latent of `height` x `width` cells, padding cut off."""
    grid = grid_of(height, width)
    latent = rearrange(tokens, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=grid[0], w=grid[1], ph=PATCH, pw=PATCH)
    return latent[:, :, :height, :width]


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tokens that cover a latent of `height` x `width` cells."""
    return -(-height // PATCH), -(-width // PATCH)


def token_count(height: int, width: int) -> int:
    """Tokens of a latent of `height` x `width` cells: what the schedule's shift counts."""
    rows, columns = grid_of(height, width)
    return rows * columns


@dataclass(frozen=True)
class RopeOptions:
    """Stretches and moves the positions of image tokens; the fields are ComfyUI's `rope_options`."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_t: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0


def image_ids(
    rows: int,
    columns: int,
    index: float = 0,
    top: float = 0,
    left: float = 0,
    options: RopeOptions = RopeOptions(),
    device: torch.device | None = None,
) -> Tensor:
    """Positions `(rows * columns, 3)` of a grid of tokens of image number `index`, first token at (top, left)."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 0] = index + options.shift_t
    ids[..., 1] = _axis(rows, top + options.shift_y, options.scale_y, device)[:, None]
    ids[..., 2] = _axis(columns, left + options.shift_x, options.scale_x, device)
    return ids.flatten(0, 1)


def _axis(count: int, start: float, scale: float, device: torch.device | None) -> Tensor:
    return torch.linspace(start, (count - 1) * scale + start, count, device=device)


def text_ids(tokens: int, device: torch.device | None = None) -> Tensor:
    """Positions `(tokens, 3)` of the text: all zero, FLUX.1's text has no order but T5's own."""
    return torch.zeros(tokens, 3, device=device)


def reference_ids(
    sizes: Sequence[tuple[int, int]],
    canvas: tuple[int, int],
    placement: Placement = "offset",
    options: RopeOptions = RopeOptions(),
    device: torch.device | None = None,
) -> list[Tensor]:
    """Positions of reference pictures beside a canvas, one `(tokens, 3)` tensor each.

    `sizes` and `canvas` are heights and widths in latent cells. The placements are those of ComfyUI:

    - offset: every reference is image 1; each next one is laid to the right of or below those before, along the side
      that keeps the whole smaller (one reference: exactly Kontext's training).
    - index: reference n is image n, all at the origin.
    - uxo: all are image 0 like the canvas, laid diagonally beyond it (UNO, USO).

    And one of our own:

    - canvas: reference n is image n, stretched over the whole canvas: for references of fewer tokens than it has.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}, not {placement!r}")
    if placement == "canvas":
        return [_over(canvas, size, number, options, device) for number, size in enumerate(sizes, start=1)]
    origins = COMFYUIS_PLACEMENTS[placement](sizes, canvas)
    # Offsets are rounded to whole tokens, half up, as ComfyUI does.
    return [
        image_ids(*grid_of(*size), index, (top + 1) // PATCH, (left + 1) // PATCH, options, device)
        for size, (index, top, left) in zip(sizes, origins, strict=True)
    ]


def _over(
    canvas: tuple[int, int], size: tuple[int, int], index: int, options: RopeOptions, device: torch.device | None
) -> Tensor:
    """Positions of a grid whose tokens stand where their middles are when it is stretched over the canvas."""
    rows, columns = grid_of(*size)
    down, across = (whole / part for whole, part in zip(grid_of(*canvas), (rows, columns), strict=True))
    stretched = replace(options, scale_y=options.scale_y * down, scale_x=options.scale_x * across)
    top, left = ((stretch - 1) / 2 * scale for stretch, scale in ((down, options.scale_y), (across, options.scale_x)))
    return image_ids(rows, columns, index, top, left, stretched, device)


def _offset(sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> list[tuple[int, int, int]]:
    origins, height, width = [], 0, 0
    for h, w in sizes:
        top, left = (0, width) if h + height > w + width else (height, 0)
        origins.append((1, top, left))
        height, width = max(height, h + top), max(width, w + left)
    return origins


def _index(sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(number, 0, 0) for number, _ in enumerate(sizes, start=1)]


def _uxo(sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> list[tuple[int, int, int]]:
    rows, columns = grid_of(*canvas)
    origins, top, left = [], rows * PATCH, columns * PATCH
    for h, w in sizes:
        origins.append((0, top, left))
        top, left = top + h, left + w
    return origins


COMFYUIS_PLACEMENTS = {"offset": _offset, "index": _index, "uxo": _uxo}
PLACEMENTS = (*COMFYUIS_PLACEMENTS, "canvas")
