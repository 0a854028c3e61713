"""How good pictures are, measured: pictures (n, 128, 128, 3) in [0, 1], masks (n, 128, 128), a number per picture."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import max_pool2d

from flux_core.canny import canny_edges
from painter.judges import read, read_depth
from painter.scenes import HORIZON, Array, Scene, draw

Masks = NDArray[np.bool_]
Ratings = NDArray[np.float64]


def slots_right(made: Array, wanted: Sequence[Scene]) -> Masks:
    """(n, 7): which slots the judges read as wanted."""
    return np.stack([read(picture).right(scene) for picture, scene in zip(made, wanted, strict=True)])


def psnr(made: Array, truth: Array, where: Masks) -> Ratings:
    """In dB over the pixels where `where` is true; NaN where there are none."""
    return np.array([
        -10 * np.log10(max(np.square(m[w] - t[w]).mean(), 1e-9)) if w.any() else np.nan
        for m, t, w in zip(made, truth, where, strict=True)
    ])  # fmt: skip


def crispness(pictures: Array) -> Ratings:
    """The 95th percentile of the gradient where mountains are: that along their outlines."""
    rows = pictures[:, 34 : HORIZON - 2]
    gradient = np.square(np.diff(rows, axis=1)[:, :, :-1]) + np.square(np.diff(rows, axis=2)[:, :-1])
    return np.quantile(np.sqrt(gradient.sum(-1)).reshape(len(pictures), -1), 0.95, axis=1)


def seam(pictures: Array, masks: Masks) -> Ratings:
    """Mean step of colour across the masks' edges."""
    steps = [np.abs(np.diff(pictures, axis=axis)).mean(-1) for axis in (1, 2)]
    crossings = [np.diff(masks, axis=axis) for axis in (1, 2)]
    crossed = sum((s * c).reshape(len(masks), -1).sum(1) for s, c in zip(steps, crossings, strict=True))
    return crossed / np.maximum(sum(c.reshape(len(masks), -1).sum(1) for c in crossings), 1)


def edge_f1(made: Array, edges: NDArray, reach: int = 2) -> Ratings:
    """F1 of the pictures' own Canny edges against a map (n, 128, 128), matches within `reach` pixels."""
    found, told = canny_edges(torch.from_numpy(made)), torch.from_numpy(edges).float()

    def near(edge: torch.Tensor) -> torch.Tensor:
        return max_pool2d(edge[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]

    precision = (found * near(told)).sum((1, 2)) / found.sum((1, 2)).clamp(min=1)
    recall = (told * near(found)).sum((1, 2)) / told.sum((1, 2)).clamp(min=1)
    return (2 * precision * recall / (precision + recall).clamp(min=1e-9)).numpy()


def depth_order(made: Array, wanted: Sequence[Scene], pairs: int = 2000) -> Ratings:
    """Share of random pairs of pixels, at clearly different depths in truth, that are read in the same order."""
    rng = np.random.default_rng(0)

    def one(picture: Array, scene: Scene) -> float:
        guess = read_depth(picture, scene)
        truth, guess = draw(scene).depth[: len(guess)].ravel(), guess.ravel()
        a, b = rng.integers(truth.size, size=(2, pairs))
        clear = np.abs(truth[a] - truth[b]) > 0.12
        return float((np.sign(truth[a] - truth[b]) == np.sign(guess[a] - guess[b]))[clear].mean())

    return np.array([one(picture, scene) for picture, scene in zip(made, wanted, strict=True)])
