"""What an edit really changed: source and edited picture compared, drift of colours and loss of detail allowed for."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..image import resized, size_of
from .align import blurred

FITTED_AT = 96
"""Longer side, in pixels, of the pictures that the colours are fitted on."""
DEGREE = 3
"""Of the polynomial in x and y that a gain follows: a field of colours is smooth."""
KEPT = torch.ones(DEGREE + 1, DEGREE + 1).triu().flip(1).bool()
"""Which products of a polynomial in y and one in x: those of DEGREE together."""
STEADY = 1e-3
"""Pull towards no drift at all, per pixel: where a large object hides the picture, there is nothing else to go by."""
NOISE = 1.0
"""Deviation, in pixels, of the blur that evens out noise."""
PER_DETAIL = 17.0
"""How many times as far colours may lie apart for each unit of local contrast; measured on a lossy autoencoder."""
VISIBLE = 0.03
"""Differences of colour up to here are never a change."""
NOT_NOISE, UNTOUCHED = 5.0, 0.4
"""A change differs so many times as much as a picture's least differing 40 %, which few edits reach."""
CERTAIN = 0.15
"""Differences of colour from here on are a change, even of nearly everything."""
FARTHEST = 0.12
"""Colours that drifted farther than this, in the mean, did not drift: it was told to be night."""
MOST = 0.6
"""Where more than this has changed, the rest is new too and no more than similar: it would be patches of the old."""
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
    rows, columns = (legendre(length, source.device) for length in reversed(fitted_at))
    terms = torch.einsum("hi, wj -> hwij", rows, columns)[..., KEPT]
    seen = torch.stack(
        [torch.cat([terms * channel[..., None], torch.ones_like(terms[..., :1])], -1).flatten(0, 1)
         for channel in small[0].unbind(-1)]
    )  # fmt: skip
    target = (small[1] - small[0]).flatten(0, 1).T[..., None]
    pull = STEADY * seen.shape[1] * torch.eye(seen.shape[2], dtype=torch.float64, device=source.device)
    drift = torch.zeros_like(seen[:, 0, :, None])
    for strictness in STRICTNESS:
        left = (target - seen @ drift).square().mean(0)[:, 0]
        weighed = seen.mT / (1 + left / strictness**2) ** 2
        drift = torch.linalg.solve(weighed @ seen + pull, weighed @ target)
    gains = drift.new_zeros(3, DEGREE + 1, DEGREE + 1)
    gains[:, KEPT] = drift[:, :-1, 0]
    rows, columns = (legendre(length, source.device).to(source) for length in (height, width))
    gain = 1 + torch.einsum("hi, cij, wj -> hwc", rows, gains.to(source), columns)
    return (source * gain + drift[:, -1, 0].to(source)).clamp(0, 1)


def legendre(length: int, device: torch.device) -> Tensor:
    """Legendre's polynomials up to DEGREE at the middles of so many pixels, `(length, DEGREE + 1)`."""
    t = (torch.arange(length, device=device, dtype=torch.float64) + 0.5) / length * 2 - 1
    return torch.stack([torch.ones_like(t), t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2], -1)


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
    must have. `holes`: fill them. Of a picture that has changed nearly everywhere all counts as changed.
    """
    drifted = recoloured(source, edited)
    apart, allowed = difference(drifted if (drifted - source).abs().mean() < FARTHEST else source, edited)
    usual = (apart / allowed).flatten().kthvalue(int(UNTOUCHED * apart.numel()) + 1).values.item()
    threshold = threshold or min(max(VISIBLE, NOT_NOISE * usual), CERTAIN)
    found = (apart > threshold * allowed).cpu().numpy()
    found = without_holes(found) if holes else found
    islands, _ = ndimage.label(found)
    large = np.bincount(islands.ravel()) >= max(1, least * found.size)
    large[0] = False
    mask = torch.from_numpy(large[islands]).to(source)
    return (mask if mask.mean() <= MOST else torch.ones_like(mask)), threshold


def without_holes(found: np.ndarray) -> np.ndarray:
    """With all that does not reach the picture's edge around it. Scipy's binary_fill_holes takes many times as long."""
    around, _ = ndimage.label(~found)
    at_edge = np.unique(np.concatenate([around[0], around[-1], around[:, 0], around[:, -1]]))
    return found | ~np.isin(around, at_edge)
