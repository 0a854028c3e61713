"""How far an edit has slid, grown and changed its colours, measured where it should not have changed at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kornia.filters import spatial_gradient
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from .colour import DOTS, middles, pooled

SMALLEST = 24
"""Shorter side, in dots, of the coarsest picture that is compared."""
STEPS = 8
"""Of Gauss and Newton at each size."""


@dataclass(frozen=True)
class Drift:
    """Of each picture of a batch: shift `(b, 2)` to the right and down in pixels, scale `(b,)`, colour gain `(b, 3)`."""

    shift: Tensor
    scale: Tensor
    gain: Tensor


def drift_of(edited: Tensor, original: Tensor, known: Tensor) -> Drift:
    """What has happened to `original` `(b, 3, h, w)` on its way to `edited`, as `known` `(b, 1, h, w)` above 0 shows it.

    Shift and scale by Gauss and Newton from coarse to fine (Lucas, Kanade 1981), with one gain and offset beside them. They
    start twice, where the picture was and where it correlates best, for textures finer than the shift.
    """
    height, width = edited.shape[-2:]
    total = (known * original).sum((-2, -1)).clamp(min=1e-6)
    gain = (known * edited).sum((-2, -1)) / total
    sizes = [dots(edited, original, known)]
    while min(sizes[-1][0].shape[-2:]) >= 2 * SMALLEST:
        sizes.append(tuple(avg_pool2d(each, 2) for each in sizes[-1]))
    finals = []
    for place in (torch.zeros(len(edited), 3, device=edited.device), correlated(*sizes[0])):
        for now, before, share in reversed(sizes):
            for _ in range(STEPS):
                place = place + step(now, before, share, place)
        finals.append(place)
    errors = torch.stack([mismatch(*sizes[0], place) for place in finals])
    place = torch.where((errors[1] < errors[0])[:, None], finals[1], finals[0])
    return Drift(place[:, :2] * place.new_tensor([width / 2, height / 2]), 1 + place[:, 2], gain)


def dots(edited: Tensor, original: Tensor, known: Tensor) -> tuple[Tensor, ...]:
    """Both in grey and the share that is known, as means over squares: at most `DOTS` along a side."""
    side = -(-max(edited.shape[-2:]) // DOTS)
    return tuple(pooled(each.mean(1, keepdim=True), side) for each in (edited, original, known))


def correlated(now: Tensor, before: Tensor, share: Tensor) -> Tensor:
    """The place `(b, 3)`, without growth, where `now` correlates best with `before`, both whitened by half."""
    height, width = now.shape[-2:]
    total = share.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    flat = [(each - (each * share).sum((-2, -1), keepdim=True) / total) * share for each in (now, before)]
    cross = torch.fft.rfft2(flat[0]) * torch.fft.rfft2(flat[1]).conj()
    peak = torch.fft.irfft2(cross / (cross.abs() + 1e-6).sqrt(), s=(height, width)).flatten(1).argmax(1)
    down, right = peak // width, peak % width
    down, right = down - height * (down > height / 2), right - width * (right > width / 2)
    return torch.stack([right * 2 / width, down * 2 / height, torch.zeros_like(peak)], -1)


def seen_from(place: Tensor, picture: Tensor) -> Tensor:
    theta = torch.diag_embed(torch.ones_like(place[:, :2]) + place[:, 2:])
    grid = affine_grid(torch.cat([theta, place[:, :2, None]], -1), list(picture.shape), align_corners=False)
    return grid_sample(picture, grid, padding_mode="border", align_corners=False)


def mismatch(now: Tensor, before: Tensor, share: Tensor, place: Tensor) -> Tensor:
    """Of each picture, `(b,)`: one minus the correlation of `now`, seen from there, with `before`."""
    seen, total = seen_from(place, now), share.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    a, b = (each - (each * share).sum((-2, -1), keepdim=True) / total for each in (seen, before))
    variance = ((a * a * share).sum((-3, -2, -1)) * (b * b * share).sum((-3, -2, -1))).sqrt()
    return 1 - (a * b * share).sum((-3, -2, -1)) / variance.clamp(min=1e-6)


def step(now: Tensor, before: Tensor, share: Tensor, place: Tensor) -> Tensor:
    """What to add to `place` `(b, 3)` so that `now`, seen from there, is more like `before` times a gain plus an offset."""
    height, width = now.shape[-2:]
    seen = seen_from(place, now)
    across, down = (spatial_gradient(seen)[:, 0] * seen.new_tensor([width / 2, height / 2])[:, None, None]).unbind(1)
    growth = across * middles(width, now.device) + down * middles(height, now.device)[:, None]
    columns = torch.stack([across, down, growth, -before[:, 0], -torch.ones_like(across)], -1).flatten(1, 2)
    error = (seen - before).flatten(1)
    error = error - (error * share.flatten(1)).sum(1, keepdim=True) / share.flatten(1).sum(1, keepdim=True).clamp(min=1)
    # Differences far above the usual are something that was painted.
    usual = (error.abs() * share.flatten(1)).sum(1, keepdim=True) / share.flatten(1).sum(1, keepdim=True).clamp(
        min=1e-6
    )
    weight = share.flatten(1) / (1 + (error / (3 * usual + 1e-3)) ** 2)
    weighted = (columns * weight[..., None]).double()
    normal = weighted.mT @ columns.double() + 1e-4 * torch.eye(5, device=now.device)
    return -torch.linalg.solve(normal, weighted.mT @ seen.double().flatten(1)[..., None])[:, :3, 0].float()
