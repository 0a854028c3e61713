"""Colours that an edit has shifted, put right: a smooth gain and offset, fitted where the picture is known.

Pictures are `(b, 3, height, width)`, weights `(b, 1, height, width)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import einsum, rearrange
from numpy.polynomial import legendre
from torch import Tensor
from torch.nn.functional import avg_pool2d

DOTS, CELLS = 256, 32
"""Along the longer side: the means that are compared, and the cells in which gain and offset are taken as constant."""
DEGREES = {"global": 0, "local": 8}
"""Of the polynomials in x and in y. 8 follows about two waves across the picture."""
BENDING, TENSION, GAIN = 1e-6, 1e-4, 3e-4
"""What bending and slope of gain and offset cost against the mean square error, across a region taken as 1 x 1; and what
a gain beside 1 costs, which is preferred to an offset only where there is texture to tell them apart."""
ROUNDS = 3
ODD = 0.01
"""The share of the smallest and of the largest corrections that has no say in how far any may go."""
LEAST_ERROR = 0.005
"""In [0, 1]: differences from the fit up to about this are noise, not something that was painted."""


@dataclass(frozen=True)
class Correction:
    """`colour * (1 + gain) + offset`, both polynomials over the region, `(b, 3, degree + 1, degree + 1)` in y and x.

    No colour is changed by less or more than `limits`, `(b, 3, 1, 1)` each, say.
    """

    gain: Tensor
    offset: Tensor
    limits: tuple[Tensor, Tensor] | None = None

    def of(self, edited: Tensor) -> Tensor:
        """The edited picture in the original's colours."""
        rows, columns = (basis(middles(side, edited.device), self.gain.shape[-1] - 1) for side in edited.shape[-2:])
        gain, offset = (
            einsum(rows, each.to(edited), columns, "h p, b c p q, w q -> b c h w") for each in (self.gain, self.offset)
        )
        change = torch.addcmul(offset, edited, gain)
        return edited + (change if self.limits is None else change.clamp(*self.limits))

    def as_seen(self, now: Tensor, weight: Tensor) -> Correction:
        """The correction, kept within what it does to `now` where `weight` is above 0, but for the odd ones out."""
        change = (self.of(now) - now).flatten(2)
        order = change.argsort(-1)
        share = weight.flatten(2).expand_as(change).gather(-1, order).cumsum(-1)
        ends = (share / share[..., -1:].clamp(min=1e-6)).contiguous()
        change = change.gather(-1, order)
        places = torch.searchsorted(ends, torch.tensor([ODD, 1 - ODD]).to(ends).expand(*ends.shape[:2], 2).contiguous())
        least, most = change.gather(-1, places.clamp(max=change.shape[-1] - 1))[..., None, None].unbind(2)
        return replace(self, limits=(least, most))

    @property
    def mean_gain(self) -> Tensor:
        """`(b, 3)`: Legendre polynomials but the first have the mean 0."""
        return 1 + self.gain[..., 0, 0]


def fitted(edited: Tensor, original: Tensor, known: Tensor, degree: int) -> Correction:
    """The gain and offset that bring `edited` nearest to `original` where `known` is above 0.

    A weighted least squares fit of Legendre polynomials that bending and slope make more expensive. Within a cell the
    contrasts are compared by their amount, not dot by dot: a picture that slid by a few pixels has lost none. Dots
    that fit badly, where something was painted, count less in each round, and the worse they fit altogether, the less
    the fit may bend: a noise of n times `LEAST_ERROR` makes its penalties 1 + n² as high. Where nothing is known, colours
    are changed by no more than elsewhere: a polynomial knows no bounds.
    """
    dot = -(-max(edited.shape[-2:]) // DOTS)
    share = pooled(known, dot)
    now, wanted = (pooled(each * known, dot) / share.clamp(min=1e-6) for each in (edited, original))
    weight, noise = share, torch.zeros(len(edited), 1, 1, 1)
    for _ in range(ROUNDS):
        correction = solved(cells(now, wanted, weight), degree, 1 + (noise / LEAST_ERROR) ** 2)
        error = (correction.of(now) - wanted).abs().amax(1, keepdim=True)
        total = weight.sum((-2, -1), keepdim=True).clamp(min=1e-6)
        usual = (error * weight).sum((-2, -1), keepdim=True) / total
        weight, noise = share / (1 + (error / (LEAST_ERROR + 2 * usual)) ** 2) ** 2, usual.double().cpu()
    return correction.as_seen(now, weight)


def pooled(picture: Tensor, side: int) -> Tensor:
    """Sums over squares of `side` pixels, as a share of a full square where it is cut by the border."""
    return avg_pool2d(picture, side, ceil_mode=True, divisor_override=side**2)


@dataclass(frozen=True)
class Cells:
    """Moments of the dots in each cell, `(b, 3 or 1, cells)`: weight, means of place and both colours, covariances."""

    weight: Tensor
    x: Tensor
    y: Tensor
    now: Tensor
    wanted: Tensor
    square: Tensor
    product: Tensor


def cells(now: Tensor, wanted: Tensor, weight: Tensor) -> Cells:
    """Weighted means over cells of dots, on the CPU in double precision."""
    side = -(-max(now.shape[-2:]) // CELLS)
    total = pooled(weight, side)

    def mean(values: Tensor) -> Tensor:
        return rearrange(pooled(values * weight, side) / total.clamp(min=1e-9), "b c h w -> b c (h w)").double().cpu()

    y, x = (middles(size, now.device) for size in now.shape[-2:])
    means = mean(now), mean(wanted)
    spreads = [(mean(each**2) - middle**2).clamp(min=0) for each, middle in zip((now, wanted), means, strict=True)]
    product = (spreads[0] * spreads[1]).sqrt() + means[0] * means[1]
    weights = (
        rearrange(total / total.sum((-2, -1), keepdim=True).clamp(min=1e-9), "b c h w -> b c (h w)").double().cpu()
    )
    return Cells(
        weights,
        mean(x.expand_as(weight)),
        mean(y[:, None].expand_as(weight)),
        *means,
        spreads[0] + means[0] ** 2,
        product,
    )


def solved(moments: Cells, degree: int, stiffness: Tensor) -> Correction:
    """The normal equations of `wanted - now = gain * now + offset`, for every picture and colour.

    `stiffness` `(b, 1, 1, 1)` multiplies the penalties.
    """
    at = torch.einsum("bnp,bnq->bnpq", *(basis(place[:, 0], degree) for place in (moments.y, moments.x))).flatten(2)

    def weighted(factor: Tensor) -> Tensor:
        return einsum(moments.weight * factor, at, at, "b c n, b n i, b n j -> b c i j")

    def right(factor: Tensor) -> Tensor:
        return einsum(moments.weight * factor, at, "b c n, b n i -> b c i")

    smooth, flat = penalties(degree)
    across, one = weighted(moments.now), torch.ones_like(moments.now)
    brightness = (moments.weight * moments.square).sum(-1)[..., None, None]  # so that gain and offset cost alike
    gain = weighted(moments.square) + stiffness * (brightness * smooth + GAIN * flat)
    offset = weighted(one) + stiffness * smooth + 1e-6 * flat
    matrix = torch.cat([torch.cat([gain, across], -1), torch.cat([across, offset], -1)], -2)
    vector = torch.cat([right(moments.product - moments.square), right(moments.wanted - moments.now)], -1)
    found = torch.linalg.solve(matrix, vector).unflatten(-1, (2, degree + 1, degree + 1))
    return Correction(*found.unbind(2))


def middles(count: int, device: torch.device) -> Tensor:
    """Where the middles of so many pixels lie between -1 and 1."""
    return (torch.arange(count, device=device) + 0.5) * (2 / count) - 1


def basis(places: Tensor, degree: int) -> Tensor:
    """Legendre polynomials `(..., degree + 1)` at places in [-1, 1], by their recurrence."""
    values = [torch.ones_like(places), places]
    for n in range(1, degree):
        values.append(((2 * n + 1) * places * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[: degree + 1], -1)


def penalties(degree: int) -> tuple[Tensor, Tensor]:
    """Quadratic forms `((degree + 1)**2, (degree + 1)**2)` of a polynomial in y and x: bending and slope as they cost, and
    its mean square, over a region of 1 x 1.
    """
    nodes, weights = legendre.leggauss(degree + 1)
    one = np.eye(degree + 1)
    # Values, slopes and curvatures of each polynomial at the nodes; the region's side is 1 but the interval's 2.
    rows = [legendre.legval(nodes, legendre.legder(one, order) if order else one) * 2.0**order for order in range(3)]
    value, slope, curve = (row * weights / 2 @ row.T for row in rows)
    bending = np.kron(curve, value) + 2 * np.kron(slope, slope) + np.kron(value, curve)
    tension = np.kron(slope, value) + np.kron(value, slope)
    return torch.from_numpy(BENDING * bending + TENSION * tension), torch.from_numpy(np.kron(value, value))
