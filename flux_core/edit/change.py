"""What an edit really changed: source and edited picture compared, drift of colours and loss of detail allowed for."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..image import resized, size_of
from .align import blurred

FITTED_AT = 96
"""Longer side, in pixels, of the pictures that the colours are fitted on."""
DEGREE = 3
"""Of the polynomial in x and y that a gain follows: a field of colours is smooth."""
STEADY = 1e-3
"""Pull towards no drift at all, per pixel: where a large object hides the picture, there is nothing else to go by."""
NOISE = 1.0
"""Deviation, in pixels, of the blur that evens out noise."""
PER_DETAIL = 17.0
"""How many times as far colours may lie apart for each unit of local contrast; measured on a lossy autoencoder."""
VISIBLE = 0.03
"""Differences of colour up to here are never a change."""
NOT_NOISE, UNTOUCHED = 5.0, 0.4
"""A change differs so many times as much as a picture's least differing 40 %, which no edit reaches."""
EDGE = 0.2
"""Of the largest difference within four pixels: less is that one's blur."""
STRICTNESS = (0.3, 0.15, 0.08, 0.05, 0.05, 0.05)
"""Colours, from 0 to 1: a pixel this far from what the others say counts a quarter."""


def recoloured(source: Tensor, edited: Tensor) -> Tensor:
    """`source` `(height, width, 3)` in the colours of `edited`, as far as these drifted smoothly.

    Each channel of the edited picture is a gain, a polynomial in x and y, times the source's, and an offset. Least
    squares that trust ever less in what differs (Geman and McClure's weights), so that a painted object has no say.
    """
    width, height = size = size_of(source[None])
    scale = min(1.0, FITTED_AT / max(size))
    fitted_at = tuple(max(1, round(side * scale)) for side in size)
    small = [resized(picture[None], fitted_at)[0].double() for picture in (source, edited)]
    terms = polynomials(*small[0].shape[:2], device=source.device)
    columns = [torch.cat([terms * small[0][..., c : c + 1], torch.ones_like(terms[..., :1])], -1) for c in range(3)]
    columns = torch.stack([column.flatten(0, 1) for column in columns])
    target = (small[1] - small[0]).flatten(0, 1).T[..., None]
    pull = STEADY * columns.shape[1] * torch.eye(columns.shape[2], dtype=torch.float64, device=source.device)
    drift = torch.zeros_like(columns[:, 0, :, None])
    for strictness in STRICTNESS:
        left = (target - columns @ drift).square().mean(0)
        weighed = columns.mT * (1 / (1 + left[:, 0] / strictness**2) ** 2)
        drift = torch.linalg.solve(weighed @ columns + pull, weighed @ target)
    gains, offsets = drift[:, :-1, 0].float(), drift[:, -1, 0].float()
    followed = polynomials(height, width, device=source.device).float() @ gains.T
    return (source * (1 + followed) + offsets).clamp(0, 1)


def polynomials(height: int, width: int, device: torch.device) -> Tensor:
    """`(height, width, terms)`: products of Legendre's polynomials in x and y up to DEGREE."""
    axes = []
    for length in (height, width):
        t = (torch.arange(length, device=device, dtype=torch.float64) + 0.5) / length * 2 - 1
        axes.append([torch.ones_like(t), t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2])
    return torch.stack(
        [axes[0][i][:, None] * axes[1][j] for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], dim=-1
    )


def difference(source: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
    """How far the colours of two pictures `(height, width, 3)` lie apart, and how many times as far they may: `(height,
    width)` each. At an edge, a little blur or a tenth of a pixel makes a large difference that means nothing.
    """
    source, edited = source.movedim(-1, 0)[None], edited.movedim(-1, 0)[None]
    apart = blurred(edited - source, NOISE).square().mean(1)[0].sqrt()
    detail = blurred((source - blurred(source, 2 * NOISE)).square(), 3 * NOISE).mean(1)[0].sqrt()
    return apart, 1 + PER_DETAIL * detail


def changed(
    source: Tensor, edited: Tensor, threshold: float = 0.0, least: float = 0.001, holes: bool = True
) -> tuple[Tensor, float]:
    """Where `(height, width)` an edit changed the picture, 1 or 0, and the threshold that told so.

    `edited` lies over `source`, both `(height, width, 3)`. `threshold`: the least difference of colours in flat places,
    from 0 to 1; 0 chooses it by how much the picture differs all over. `least`: the share of the picture that an island
    must have. `holes`: fill them.
    """
    apart, allowed = difference(recoloured(source, edited), edited)
    usual = (apart / allowed).flatten().kthvalue(int(UNTOUCHED * apart.numel()) + 1).values.item()
    threshold = threshold or max(VISIBLE, NOT_NOISE * usual)
    # The blur spreads a large difference over its neighbours: near one, a fifth is its edge.
    nearby = max_pool2d(apart[None], 9, stride=1, padding=4)[0]
    found = ((apart > threshold * allowed) & (apart > EDGE * nearby)).cpu().numpy()
    found = ndimage.binary_fill_holes(found) if holes else found
    islands, _ = ndimage.label(found)
    large = np.bincount(islands.ravel()) >= max(1, least * found.size)
    large[0] = False
    return torch.from_numpy(large[islands]).to(source), threshold
