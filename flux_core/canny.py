"""Canny edges as FLUX.1 Canny was trained on: pixel for pixel OpenCV's `Canny(picture, 50, 200)` on 8-bit RGB.

No blur, Sobel gradients over replicated edges, of the three colours the one with the steepest gradient, L1 magnitude
(J. Canny 1986; the integer arithmetic is that of OpenCV's imgproc/canny.cpp). In torch, so on any device and in batches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .errors import Flux1Error

LOW, HIGH = 50, 200
"""Black Forest Labs' thresholds, in units of the L1 gradient of 8-bit colours."""
MOST = 2000
"""The largest threshold."""
TAN_22 = 13573
"""tan(22.5 degrees) in fixed point, 15 bits after the point."""


def canny_edges(image: Tensor, low: int = LOW, high: int = HIGH) -> Tensor:
    """Edges of a picture `(b, height, width, 3)` in [0, 1]: `(b, height, width)`, 1 on an edge and 0 elsewhere.

    Raises Flux1Error when `low` is above `high`.
    """
    check_thresholds(low, high)
    dx, dy = steepest(*sobel(eight_bit(image)))
    magnitude = dx.abs() + dy.abs()
    candidates = is_peak(dx, dy, magnitude) & (magnitude > low)
    return connected(candidates & (magnitude > high), candidates).float()


def check_thresholds(low: int, high: int) -> None:
    """Raises Flux1Error for thresholds the wrong way round or out of range."""
    if not 0 <= low <= high <= MOST:
        raise Flux1Error(
            "The thresholds are out of range, or the wrong way round",
            expected=f"0 <= low <= high <= {MOST}",
            found=f"low {low}, high {high}",
            fix="set low below high",
        )


def eight_bit(image: Tensor) -> Tensor:
    """`(b, height, width, 3)` in [0, 1] to whole numbers from 0 to 255, `(b, 3, height, width)` int32 ."""
    return (image.movedim(-1, 1).float() * 255).round().clamp(0, 255).int()


def sobel(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical 3x3 Sobel gradients of `(b, c, height, width)`, edges replicated."""
    height, width = colours.shape[-2:]
    padded = pad(colours.float(), (1, 1, 1, 1), mode="replicate").to(colours.dtype)

    def at(row: int, column: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    dx = sum(weight * (at(row, 1) - at(row, -1)) for row, weight in ((-1, 1), (0, 2), (1, 1)))
    dy = sum(weight * (at(1, column) - at(-1, column)) for column, weight in ((-1, 1), (0, 2), (1, 1)))
    return dx, dy


def steepest(dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pixel's colours the gradient with the largest L1 magnitude, the first of equals: `(b, height, width)`."""
    best_x, best_y = dx[:, 0], dy[:, 0]
    for x, y in zip(dx.unbind(1)[1:], dy.unbind(1)[1:], strict=True):
        steeper = x.abs() + y.abs() > best_x.abs() + best_y.abs()
        best_x, best_y = torch.where(steeper, x, best_x), torch.where(steeper, y, best_y)
    return best_x, best_y


def is_peak(dx: Tensor, dy: Tensor, magnitude: Tensor) -> Tensor:
    """Where the magnitude is larger than that of both neighbours across the edge (non-maximum suppression)."""
    height, width = magnitude.shape[-2:]
    padded = pad(magnitude, (1, 1, 1, 1))

    def at(row: int, column: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    x, y = dx.abs(), dy.abs() << 15  # at most 2 ** 28
    below_22 = y < x * TAN_22
    above_67 = y > x * TAN_22 + (x << 16)
    falling = (dx ^ dy) < 0
    horizontal = (magnitude > at(0, -1)) & (magnitude >= at(0, 1))
    vertical = (magnitude > at(-1, 0)) & (magnitude >= at(1, 0))
    rising_diagonal = (magnitude > at(-1, -1)) & (magnitude > at(1, 1))
    falling_diagonal = (magnitude > at(-1, 1)) & (magnitude > at(1, -1))
    diagonal = torch.where(falling, falling_diagonal, rising_diagonal)
    return torch.where(below_22, horizontal, torch.where(above_67, vertical, diagonal))


def connected(seeds: Tensor, candidates: Tensor) -> Tensor:
    """The candidates that touch a seed, directly or through other candidates (hysteresis, 8 neighbours)."""
    reached = seeds & candidates
    while True:
        before = reached
        for _ in range(8):  # looking whether anything changed costs a wait for the device
            reached = spread(spread(reached, -1), -2) & candidates
        if torch.equal(before, reached):
            return reached


def spread(where: Tensor, dim: int) -> Tensor:
    """True also one step before and behind along `dim`."""
    wider, length = where.clone(), where.shape[dim] - 1
    wider.narrow(dim, 1, length).logical_or_(where.narrow(dim, 0, length))
    wider.narrow(dim, 0, length).logical_or_(where.narrow(dim, 1, length))
    return wider
