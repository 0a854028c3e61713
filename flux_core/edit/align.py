"""Registration: how an edited picture lies over its source, and the way back.

FLUX.1 Kontext paints the whole picture anew and moves it by some pixels, or enlarges it by a percent. Tiles of source and
edited picture are compared by their correlation, and one similarity is fitted to what most of them say, from coarse to
fine: an edit, even a large one, makes tiles that disagree, and those lose their say.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

TILE = 64
"""Side of a tile in pixels of its level."""
MOST_TILES = 40
"""Along a side: beyond, tiles stand further apart."""
COARSEST = 256
"""Longer side of the coarsest level: there a move of 5 % of the picture is a fifth of a tile."""
FINEST = 1536
"""Longer side of the finest level: more pixels would cost time and better nothing."""
ROUNDS = 3
"""Per level: each one compares with what the one before has left."""
DETAIL = 8.0
"""Deviation, in pixels of the level, of the blur that is subtracted: colour drift and shading are slower."""
PASSED = 0.12
"""Deviation, in cycles per pixel, of the correlation's low pass: noise and an autoencoder's blur lie above."""
FAINT = 1e-6
"""A tile's spectrum below this is nothing to go by."""
STRICTNESS = (16.0, 4.0, 1.0, 0.5)
"""In pixels: a tile this far from what the others say counts a quarter. Lenient first, so that the many find each other."""
OVERLAP = 4.0
"""Tiles half overlapping along both sides: four share each pixel, and their errors."""
TINY = 1e-12
"""Keeps a sum of weights from being zero."""
CLOSE = 1.0
"""Pixels of its level by which a tile may differ and still agree."""

MOST = 0.5
"""Share of the tiles that has to agree."""
FOUNDED, NOTICED = 0.25, 0.05
"""Pixels: above the one, the uncertainty is too large to act on; below the other, a movement is not worth a resampling."""
LARGEST = (0.1, 0.1, 5.0)
"""What an editor does without meaning to: shift as a share of the longer side, change of scale, degrees."""


@dataclass(frozen=True)
class Similarity:
    """Where a source's pixel lies in the edited picture: turn * position + shift, complex numbers of x + iy.

    Positions are in pixels from the picture's middle.
    """

    turn: complex = 1
    shift: complex = 0

    @property
    def scale(self) -> float:
        """Above 1 where the edited picture is larger."""
        return abs(self.turn)

    @property
    def degrees(self) -> float:
        """Clockwise, as y grows downwards."""
        return math.degrees(cmath.phase(self.turn))

    def __str__(self) -> str:
        x, y = self.shift.real, self.shift.imag
        return f"{x:+.2f}, {y:+.2f} pixels, scale {self.scale:.2%}, {self.degrees:+.2f} degrees"

    def after(self, first: Similarity) -> Similarity:
        """`first`, then this one."""
        return Similarity(self.turn * first.turn, self.turn * first.shift + self.shift)

    def enlarged(self, factor: float) -> Similarity:
        """The same for pictures `factor` times as large."""
        return Similarity(self.turn, self.shift * factor)

    def movement(self, width: int, height: int) -> float:
        """By how many pixels it moves a picture's points, root mean square."""
        # Shift and the rest add in squares, as positions are centred; theirs average to (width² + height²) / 12.
        return math.hypot(abs(self.shift), abs(self.turn - 1) * math.hypot(width, height) / math.sqrt(12))


@dataclass(frozen=True)
class Registration:
    """What was found, and how well it is founded."""

    found: Similarity
    size: tuple[int, int]
    """The source's (width, height)."""
    agreeing: float
    """Share of the tiles that agree, each counted by how clear it is."""
    uncertainty: float
    """Pixels, root mean square over the picture: the movement's standard error."""

    @property
    def movement(self) -> float:
        """Pixels, root mean square over the picture."""
        return self.found.movement(*self.size)

    @property
    def doubt(self) -> str:
        """Why it can't be trusted; empty where it can."""
        share, change, degrees = LARGEST
        if self.agreeing < MOST:
            return f"only {self.agreeing:.0%} of the picture agrees on a movement"
        if self.uncertainty > FOUNDED:
            return f"the movement is known to {self.uncertainty:.2f} pixels only"
        far = abs(self.found.shift) > share * max(self.size)
        if far or abs(self.found.scale - 1) > change or abs(self.found.degrees) > degrees:
            return f"so large a movement can't be meant ({self.found})"
        return ""

    @property
    def to_undo(self) -> bool:
        """Whether undoing it betters the picture: it is trusted, and larger than its own error."""
        return not self.doubt and self.movement > max(NOTICED, 3 * self.uncertainty)


def register(source: Tensor, edited: Tensor) -> Registration:
    """How `edited` lies over `source`, both `(height, width, 3)`."""
    height, width = source.shape[:2]
    found, agreeing, uncertainty = Similarity(), 0.0, math.inf
    for level in pyramid(torch.stack([source, edited]).mean(-1)[:, None]):
        factor = level.shape[-1] / width
        pair, here = level - blurred(level, DETAIL), found.enlarged(factor)
        for _ in range(ROUNDS):
            rest, agreeing, uncertainty = fitted(*displacements(pair[0], warped(pair[1], here)), level.shape[-2:])
            if agreeing >= MOST:
                here = here.after(rest)
        found = here.enlarged(1 / factor)
    return Registration(found, (width, height), agreeing, uncertainty / factor)


def undone(edited: Tensor, found: Similarity) -> tuple[Tensor, Tensor]:
    """`edited` `(height, width, 3)` laid back over its source, and where `(height, width)` it had nothing to lay there: 1."""
    inside = warped(torch.ones_like(edited[None, ..., 0]), found, mode="nearest", padding="zeros")[0]
    return warped(edited.movedim(-1, 0), found).movedim(0, -1).clamp(0, 1), 1 - inside


def blurred(image: Tensor, sigma: float) -> Tensor:
    size = 2 * min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1) + 1
    return gaussian_blur2d(image, (size, size), (sigma, sigma), border_type="reflect")


def pyramid(pair: Tensor) -> Iterator[Tensor]:
    """From coarse to fine, each level twice the one before, the last one whole or not much smaller than FINEST."""
    height, width = pair.shape[-2:]
    most, least = (max(0, math.ceil(math.log2(max(height, width) / side))) for side in (COARSEST, FINEST))
    for step in range(most, least - 1, -1):
        size = (round(height / 2**step), round(width / 2**step))
        yield interpolate(pair, size, mode="bilinear", antialias=True) if step else pair


def warped(image: Tensor, by: Similarity, mode: str = "bicubic", padding: str = "border") -> Tensor:
    """`image` `(c, height, width)` taken where `by` says that each pixel of the source is."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=image.device) - (width - 1) / 2
    y = torch.arange(height, device=image.device) - (height - 1) / 2
    across = by.turn.real * x - by.turn.imag * y[:, None] + by.shift.real
    down = by.turn.imag * x + by.turn.real * y[:, None] + by.shift.imag
    grid = torch.stack([across * 2 / width, down * 2 / height], dim=-1)
    return grid_sample(image[None], grid[None], mode=mode, padding_mode=padding, align_corners=False)[0]


def displacements(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far the second picture's contents lie from the first's, tile by tile; both are `(1, height, width)`.

    Returns the tiles' middles, the distances, both complex, x + iy from the picture's middle, and how clear each is in
    [0, 1]. By phase correlation (Kuglin and Hines, 1975), of low frequencies only: the high ones are noise.
    """
    side = min(TILE, *first.shape[-2:])
    tops, lefts = (starts(length, side).to(first.device) for length in first.shape[-2:])
    window = torch.hann_window(side, periodic=False, device=first.device)
    frequencies = torch.fft.fftfreq(side, device=first.device)[:, None], torch.fft.rfftfreq(side, device=first.device)
    low = torch.exp(-(frequencies[0] ** 2 + frequencies[1] ** 2) / (2 * PASSED**2))
    spectra = []
    for picture in (first, second):
        tiles = picture[0].unfold(0, side, 1).unfold(1, side, 1)[tops[:, None], lefts].flatten(0, 1)
        tiles = (tiles - tiles.mean((-2, -1), keepdim=True)) * window * window[:, None]
        spectra.append(torch.fft.rfft2(tiles))
    shared = spectra[0].conj() * spectra[1]
    strength = shared.abs()
    floor = 0.01 * strength.mean((-2, -1), keepdim=True) + FAINT
    surfaces = torch.fft.irfft2(shared / (strength + floor) * low, s=(side, side))
    distances, clear = peaks(surfaces / torch.fft.irfft2(low, s=(side, side))[0, 0])
    y, x = (start + (side - length) / 2 for start, length in zip((tops, lefts), first.shape[-2:], strict=True))
    return torch.complex(*torch.broadcast_tensors(x, y[:, None])).flatten(), distances, clear


def starts(length: int, side: int) -> Tensor:
    """Of tiles that cover `length`, half overlapping where they are not too many."""
    count = min(MOST_TILES, max(1, round(2 * length / side) - 1))
    return torch.linspace(0, length - side, count).round().long()


def peaks(surfaces: Tensor) -> tuple[Tensor, Tensor]:
    """The highest points of `(n, side, side)`, each between pixels by a parabola: from the origin, x + iy, and height."""
    side = surfaces.shape[-1]
    height, at = surfaces.flatten(1).max(1)
    number, y, x = torch.arange(len(at), device=at.device), at // side, at % side

    def between(before: Tensor, after: Tensor) -> Tensor:
        return (before - after) / (2 * (before + after - 2 * height)).clamp(max=-1e-12)

    up, down = (surfaces[number, (y + step) % side, x] for step in (-1, 1))
    left, right = (surfaces[number, y, (x + step) % side] for step in (-1, 1))
    x, y = ((place + side // 2) % side - side // 2 for place in (x, y))
    return torch.complex(x + between(left, right), y + between(up, down)), height.clamp(0, 1)


def fitted(middles: Tensor, distances: Tensor, clear: Tensor, size: tuple[int, int]) -> tuple[Similarity, float, float]:
    """The similarity that most tiles agree on, their share, and its standard error over a picture of (height, width).

    Weighted least squares whose weights follow from what is left (Geman and McClure's), made stricter step by step.
    """
    middles = middles.to("cpu", torch.complex128)
    targets = middles + distances.to(middles)
    said = clear.to("cpu", torch.float64) ** 2
    turn, shift = torch.ones_like(middles[0]), torch.zeros_like(middles[0])
    for strictness in STRICTNESS:
        for _ in range(4):
            left = (targets - turn * middles - shift).abs()
            weights = said / (1 + (left / strictness) ** 2) ** 2
            total = weights.sum() + TINY
            here, there = ((weights * points).sum() / total for points in (middles, targets))
            arms = middles - here
            spread = (weights * arms.abs() ** 2).sum() + TINY
            turn = (weights * arms.conj() * (targets - there)).sum() / spread
            shift = there - turn * here
    left = (targets - turn * middles - shift).abs()
    agreeing = (said * (left < CLOSE)).sum() / (said.sum() + TINY)
    deviation = weights.square() * left.square() * OVERLAP  # of each tile's share in the two means above
    of_shift, of_turn = deviation.sum() / total**2, (deviation * arms.abs() ** 2).sum() / spread**2
    reach = sum(side**2 for side in size) / 12 + here.abs() ** 2
    return Similarity(turn.item(), shift.item()), agreeing.item(), (of_shift + of_turn * reach).sqrt().item()
