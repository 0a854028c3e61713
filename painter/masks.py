"""Masks like those that people draw: rectangles, brush strokes, borders, a whole region, the sun's surroundings."""

import numpy as np
from numpy.typing import NDArray

from painter.scenes import COLUMNS, REGIONS, ROWS, SIZE, Picture

Mask = NDArray[np.bool_]  # (128, 128), true where the picture is to be made anew


def rectangle(rng: np.random.Generator) -> Mask:
    height, width = rng.integers(20, 90, 2)
    top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def strokes(rng: np.random.Generator) -> Mask:
    mask = np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(1, 4)):
        row, column, angle, radius = *rng.uniform(10, SIZE - 10, 2), rng.uniform(0, 2 * np.pi), rng.uniform(5, 12)
        for _ in range(rng.integers(4, 12)):
            mask |= np.hypot(ROWS - row, COLUMNS - column) < radius
            angle += rng.normal(0, 0.6)
            row, column = row + radius * np.sin(angle), column + radius * np.cos(angle)
    return mask


def border(rng: np.random.Generator) -> Mask:
    """What outpainting asks for: something on one to four sides."""
    sides = rng.integers(8, 44, 4) * (rng.random(4) < 0.6)
    if not sides.any():
        sides[rng.integers(4)] = 32
    top, bottom, left, right = sides
    return ~((top <= ROWS) & (SIZE - bottom > ROWS) & (left <= COLUMNS) & (SIZE - right > COLUMNS))


def region(picture: Picture, names: tuple[str, ...], grow: int = 2) -> Mask:
    """A region of the picture and `grow` pixels around it."""
    mask = np.isin(picture.regions, [REGIONS.index(name) for name in names])
    for _ in range(grow):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def around_body(picture: Picture, rng: np.random.Generator) -> Mask:
    """A disc or a square over the sun or moon and some of its glow."""
    rows, columns = np.nonzero(picture.regions == REGIONS.index("body"))
    row, column = rows.mean() + rng.uniform(-3, 3), columns.mean() + rng.uniform(-3, 3)
    reach = rng.uniform(14, 32)
    if rng.random() < 0.5:
        return np.hypot(ROWS - row, COLUMNS - column) < reach
    return np.maximum(abs(ROWS - row), abs(COLUMNS - column)) < reach


def random_mask(picture: Picture, rng: np.random.Generator) -> Mask:
    kind = rng.random()
    if kind < 0.4:
        return rectangle(rng)
    if kind < 0.6:
        return strokes(rng)
    if kind < 0.85:
        return border(rng)
    choices = [("sky", "body"), ("ground",), ("ridge", "snow"), ("lake",)]
    mask = region(picture, choices[rng.integers(len(choices))])
    return mask if mask.any() else rectangle(rng)
