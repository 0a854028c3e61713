"""What a variant sees beside the noisy picture: masked image and mask, control picture, references."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

LATENT_SCALE = 8
"""Pixels per latent cell, along each side."""

KONTEXT_SIZES: tuple[tuple[int, int], ...] = (
    # (width, height) in pixels: what Kontext was trained on.
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024),
    (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672),
)  # fmt: skip


def masked_pixels(image: Tensor, mask: Tensor) -> Tensor:
    """The picture Fill is shown: mid grey where the mask is 1.

    `image` `(b, height, width, 3)` and `mask` `(b, height, width)` in [0, 1]. Fill multiplies pixels in [-1, 1] by
    1 - mask, so the hole is 0 there and 0.5 here.
    """
    return (image - 0.5) * (1 - mask)[..., None] + 0.5


def mask_to_cells(mask: Tensor) -> Tensor:
    """Pixel mask `(b, 1, 8h, 8w)` to `(b, 64, h, w)`: each latent cell carries its own 8x8 pixels."""
    return rearrange(mask, "b 1 (h ph) (w pw) -> b (ph pw) h w", ph=LATENT_SCALE, pw=LATENT_SCALE)


def fill_cells(masked: Tensor, mask: Tensor) -> Tensor:
    """Fill's 80 extra channels per latent cell: 16 of the encoded masked picture, 64 of the pixel mask.

    `masked` `(b, 16, h, w)`, `mask` `(b, 1, 8h, 8w)`; packed they are the 64 + 256 extra channels of a token.
    """
    return torch.cat([masked, mask_to_cells(mask)], dim=1)


def nearest_kontext_size(width: int, height: int) -> tuple[int, int]:
    """The trained size (width, height) whose aspect ratio is closest to that of `width` x `height`."""
    aspect = width / height
    return min(KONTEXT_SIZES, key=lambda size: abs(aspect - size[0] / size[1]))
