"""How an edit is laid into its picture: feathered, in bands of frequency, or by its gradients; nothing outside the mask.

Pictures are `(b, c, height, width)`, masks `(b, 1, height, width)`; weights grow from the mask's edge inwards, so that
they are 0 wherever the mask is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import pyrdown, pyrup
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..image import grown

RELAXATIONS = 12
"""Jacobi steps of the membrane at each size: what the coarser one got wrong is at most a few pixels wide."""


def feather(original: Tensor, edited: Tensor, mask: Tensor, width: int) -> Tensor:
    """A smooth ramp over the `width` pixels inside the mask's edge; 0: the mask as it is."""
    return torch.lerp(original, edited, smoothstep(ramp(mask, width)) * mask)


def multi_band(original: Tensor, edited: Tensor, mask: Tensor, width: int) -> Tensor:
    """Fine detail changes over at once, `width / 2` inside the edge, broad colour over all of `width` (Burt, Adelson 1983)."""
    levels = max(int(math.log2(max(width, 1) / 4)), 0)
    weight = (ramp(mask, width) >= 0.5).to(mask) * mask
    height, across = mask.shape[-2:]
    sides = (0, -across % 2**levels, 0, -height % 2**levels)
    difference, weight = (pad(each, sides, mode="replicate") for each in (edited - original, weight))
    return original + banded(difference, weight, levels)[..., :height, :across] * (mask > 0)


def gradient(original: Tensor, edited: Tensor, mask: Tensor, width: int) -> Tensor:
    """The edit's gradients with the picture's colours at the mask's edge (Poisson blending: Pérez et al. 2003).

    What solves it is the edit plus a membrane: harmonic inside the mask, at its edge what the picture there differs from
    the edit, averaged over a quarter of `width` since single pixels of an edit are noisy. The rest is feathered.
    """
    known = (mask == 0).to(mask)
    size = 2 * math.ceil(width / 2) + 1, 2 * math.ceil(width / 2) + 1
    sigma = max(width / 4, 0.5)
    total, share = (
        gaussian_blur2d(each, size, (sigma, sigma), border_type="constant")
        for each in ((original - edited) * known, known)
    )
    return feather(original, edited + membrane(total / share.clamp(min=1e-6), known), mask, width)


BLENDS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "feather": feather,
    "multi-band": multi_band,
    "gradient": gradient,
}


def ramp(mask: Tensor, width: int) -> Tensor:
    """Rises evenly from the mask's edge to 1 at `width` pixels inside it, or in the middle of parts narrower than that."""
    if width == 0:
        return torch.ones_like(mask)
    depth = distance(mask > 0, width)
    rise = torch.ones_like(depth)
    for radius in sorted({*(2**power for power in range(width.bit_length())), width}):
        # Around the middles of discs that fit into the mask, out to a right-angled corner.
        near_disc = grown((depth >= radius).to(mask)[:, 0], radius + radius // 2 + 1)[:, None]
        rise = torch.where(near_disc > 0, float(radius), rise)
    return (depth / rise).clamp(max=1)


def smoothstep(x: Tensor) -> Tensor:
    return x * x * (3 - 2 * x)


def distance(inside: Tensor, most: int) -> Tensor:
    """How far each pixel inside is from the nearest outside, at most `most` pixels; the picture's border is no edge.

    One dimension after the other on squares of distances (Felzenszwalb, Huttenlocher 2012), so it is exact.
    """
    squares = torch.where(inside, float(most**2), 0.0)
    for dim in (-1, -2):
        before = squares.clone()
        for step in range(1, min(most, inside.shape[dim])):
            kept = inside.shape[dim] - step
            for there, here in ((step, 0), (0, step)):
                part = squares.narrow(dim, there, kept)
                torch.minimum(part, before.narrow(dim, here, kept) + step**2, out=part)
    return squares.sqrt()


def banded(difference: Tensor, weight: Tensor, levels: int) -> Tensor:
    """The Laplacian pyramid of a difference, each band times the weight blurred to its own size, and summed again.

    kornia's ready pyramid pads both sides to powers of two, up to four times the pixels.
    """
    if levels == 0:
        return difference * weight
    coarse = pyrdown(difference, border_type="replicate")
    fine = (difference - pyrup(coarse, border_type="replicate")) * weight
    return fine + pyrup(banded(coarse, pyrdown(weight, border_type="replicate"), levels - 1), border_type="replicate")


def membrane(values: Tensor, known: Tensor) -> Tensor:
    """`values` where `known` is 1, and between them what is everywhere the mean of its neighbours (Laplace's equation).

    Solved at half the size first, which leaves only the near surroundings of known pixels to be relaxed. Nothing known:
    0.
    """
    height, width = values.shape[-2:]
    if min(height, width) < 2:
        mean = (values * known).sum((-2, -1), keepdim=True) / known.sum((-2, -1), keepdim=True).clamp(min=1)
        return torch.where(known > 0, values, mean)
    share = avg_pool2d(known, 2, ceil_mode=True)
    halved = avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    guess = interpolate(membrane(halved, (share > 0).to(known)), (height, width), mode="bilinear", align_corners=False)
    sheet = torch.where(known > 0, values, guess)
    for _ in range(RELAXATIONS):
        around = pad(sheet, (1, 1, 1, 1), mode="replicate")
        mean = (around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]) / 4
        sheet = torch.where(known > 0, values, mean)
    return sheet
