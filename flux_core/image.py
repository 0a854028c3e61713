"""Pictures before they are encoded: checks, masks, padding to whole tokens, Kontext's sizes.

Pictures are `(b, height, width, 3)`, masks `(b, height, width)`, both in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import kornia
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .conditioning import LATENT_SCALE, nearest_kontext_size
from .errors import Flux1Error
from .packing import PATCH

TOKEN = LATENT_SCALE * PATCH
"""Side of a token in pixels."""


def size_of(image: Tensor) -> tuple[int, int]:
    """(width, height) in pixels."""
    return image.shape[2], image.shape[1]


MOST_PIXELS = 2**26
"""Of one picture, such as 8192 x 8192: sixty times what FLUX.1 was trained on, and what a batch's memory is bound by."""


def rgb(image: Tensor) -> Tensor:
    """The picture without alpha, grey repeated to three channels.

    Raises Flux1Error when a side is shorter than a token, or the picture so large that its size must be a mistake.
    """
    width, height = size_of(image)
    if width * height > MOST_PIXELS:
        raise Flux1Error(
            "The picture is too large for FLUX.1",
            expected=f"at most {MOST_PIXELS:,} pixels, such as 8192 x 8192",
            found=f"{width} x {height}, {width * height:,} pixels",
            fix="scale the picture down first; FLUX.1 paints about one megapixel, and up to four",
        )
    if min(width, height) < TOKEN:
        raise Flux1Error(
            "The picture is too small for FLUX.1",
            expected=f"at least {TOKEN} x {TOKEN} pixels",
            found=f"{width} x {height}",
            fix="enlarge the picture first",
        )
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]


def image_and_mask(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Picture and mask checked against each other, batches matched.

    Raises Flux1Error when their sizes or batches differ, when a mask is empty, or the picture is too small.
    """
    image = rgb(image)
    mask = mask[None] if mask.ndim == 2 else mask
    empty = int((mask.flatten(1).amax(1) <= 0).sum())
    if empty:
        raise Flux1Error(
            "The mask is empty: 0 pixels are to be painted",
            expected="a mask that is white where to paint",
            found=f"{empty} empty of {len(mask)} mask(s)",
            fix="draw a mask (right click on the picture, Open in MaskEditor), or invert it",
        )
    if size_of(mask) != size_of(image):
        raise Flux1Error(
            "The mask is not of the picture's size",
            expected="a mask of {} x {} pixels".format(*size_of(image)),
            found="{} x {}".format(*size_of(mask)),
            fix="take the mask from the same picture, or scale it to the picture's size",
        )
    if len(image) != len(mask) and 1 not in (len(image), len(mask)):
        raise Flux1Error(
            "The batches of picture and mask don't match",
            expected=f"a batch of {len(image)} masks, or 1",
            found=f"{len(mask)}",
            fix="give one mask for all pictures, or one for each",
        )
    batch = max(len(image), len(mask))
    return image.expand(batch, -1, -1, -1), mask.expand(batch, -1, -1).clamp(0, 1)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """The mask widened by a disc of so many pixels, or narrowed where `pixels` is negative."""
    if pixels < 0:
        return -grown(-mask, -pixels)
    rows, out, reach = mask.clone(), mask.clone(), 0
    for down in range(pixels, -1, -1):  # the disc's rows from its rim to its middle, each wider than the one before
        half = math.isqrt(pixels**2 - down**2)
        for step in range(reach + 1, half + 1):
            _raise(rows, mask, step, -1)
        reach = half
        _raise(out, rows, down, -2)
    return out


def _raise(target: Tensor, source: Tensor, steps: int, dim: int) -> None:
    """`target` at least what `source` is `steps` before and behind along `dim`."""
    kept = target.shape[dim] - steps
    for there, here in ((steps, 0), (0, steps)) if kept > 0 else ():
        part = target.narrow(dim, there, kept)
        torch.maximum(part, source.narrow(dim, here, kept), out=part)


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """The mask's edge made a smooth ramp that reaches so many pixels to both sides."""
    if pixels == 0:
        return mask
    size, reach = 2 * pixels + 1, min(pixels, *(side - 1 for side in mask.shape[-2:]))
    return kornia.filters.gaussian_blur2d(
        mask[:, None], (2 * reach + 1, 2 * reach + 1), (size / 6, size / 6), border_type="replicate"
    )[:, 0].clamp(0, 1)


def pad_to_tokens(image: Tensor) -> Tensor:
    """Repeat the right and bottom edge until both sides are whole tokens."""
    width, height = size_of(image)
    padding = (0, -width % TOKEN, 0, -height % TOKEN)
    return pad(image.movedim(-1, 1), padding, mode="replicate").movedim(1, -1)


@dataclass(frozen=True)
class Sized:
    """A picture in whole tokens, and the (width, height) of it that is not padding."""

    image: Tensor
    size: tuple[int, int]


def stretch(image: Tensor) -> Sized:
    """To the nearest Kontext size, as Black Forest Labs' code does."""
    size = nearest_kontext_size(*size_of(image))
    return Sized(resized(image, size), size)


def crop(image: Tensor) -> Sized:
    """To the nearest Kontext size, the aspect ratio kept, the middle of the picture taken."""
    (width, height), size = size_of(image), nearest_kontext_size(*size_of(image))
    aspect = size[0] / size[1]
    kept_width, kept_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return Sized(resized(image[:, top : top + kept_height, left : left + kept_width], size), size)


def fit(image: Tensor) -> Sized:
    """Into the nearest Kontext size, the aspect ratio kept, the rest padded with the picture's edge."""
    (width, height), size = size_of(image), nearest_kontext_size(*size_of(image))
    scale = min(size[0] / width, size[1] / height)
    inner = round(width * scale), round(height * scale)
    padding = (0, size[0] - inner[0], 0, size[1] - inner[1])
    padded = pad(resized(image, inner).movedim(-1, 1), padding, mode="replicate").movedim(1, -1)
    return Sized(padded, inner)


def scaled(image: Tensor, scale: float) -> Tensor:
    """By a factor, each side rounded to whole tokens."""
    return resized(image, tuple(max(TOKEN, round(side * scale / TOKEN) * TOKEN) for side in size_of(image)))


def own_size(image: Tensor) -> Sized:
    """At its own size, each side rounded to whole tokens."""
    image = scaled(image, 1.0)
    return Sized(image, size_of(image))


SIZINGS = {"stretch": stretch, "crop": crop, "pad": fit, "own size": own_size}


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """To (width, height) by antialiased bicubic interpolation; untouched where that is its size."""
    if size_of(image) == size:
        return image
    pixels = interpolate(image.movedim(-1, 1), size[::-1], mode="bicubic", antialias=True, align_corners=False)
    return pixels.movedim(1, -1).clamp(0, 1)
