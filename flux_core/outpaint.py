"""Room around a picture for Fill to paint in: the larger picture and its mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .errors import Flux1Error

MOST = 4096
"""Pixels that may be added at one side."""


def check_room(left: int, top: int, right: int, bottom: int) -> None:
    """Raises Flux1Error where nothing is added, or at one side less than nothing or more than `MOST`."""
    room = {"left": left, "top": top, "right": right, "bottom": bottom}
    found = ", ".join(f"{side} {pixels}" for side, pixels in room.items())
    if not any(room.values()):
        raise Flux1Error(
            "Nothing is added to the picture: 0 pixels are to be painted",
            expected="more than 0 pixels at one side or more",
            found=found,
            fix="set left, top, right or bottom; to paint inside the picture, give FLUX.1 Fill Conditioning a mask",
        )
    if min(room.values()) < 0 or max(room.values()) > MOST:
        raise Flux1Error(
            "The room to be added is out of range",
            expected=f"0 to {MOST} pixels at each side",
            found=found,
            fix="crop the picture first to make it smaller, or extend it in several runs",
        )


def padded_for_outpaint(
    image: Tensor, left: int, top: int, right: int, bottom: int, feather: int = 0
) -> tuple[Tensor, Tensor]:
    """The picture `(b, height, width, 3)` with so many pixels added at its sides, and the mask `(1, height, width)`.

    What is added is mid grey: what Fill is shown of masked pixels, so that softening the mask later shows it nothing
    else. The mask is 1 there and falls to 0 in a straight ramp over the `feather` pixels of the picture next to it.
    Raises Flux1Error as `check_room` does.
    """
    check_room(left, top, right, bottom)
    sides = (left, right, top, bottom)
    height, width = image.shape[1:3]
    # How deep inside the picture a pixel lies, counted from 1 at each side that is extended.
    rows, columns = (torch.arange(1, side + 1, device=image.device) for side in (height, width))
    untouched = torch.full((height, width), feather + 1, device=image.device)
    depths = (columns[None], columns.flip(0)[None], rows[:, None], rows.flip(0)[:, None])
    for added, depth in zip(sides, depths, strict=True):
        untouched = torch.minimum(untouched, depth) if added else untouched
    mask = 1 - untouched / (feather + 1)
    larger = pad(image.movedim(-1, 1), sides, value=0.5).movedim(1, -1)
    return larger, pad(mask[None], sides, value=1.0)
