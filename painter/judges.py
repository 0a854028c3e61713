"""Reads the seven slots back from a picture, by the colours that `scenes` paints with: no training, no tolerance to taste."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from painter import scenes
from painter.scenes import BODY_COLUMN, GROUNDS, HORIZON, SHORE, SIZE, SKIES, TIMES, Array, Scene


def distance(pixels: Array, colour: Array) -> Array:
    return np.linalg.norm(pixels - colour, axis=-1)


def off_segment(pixels: Array, start: Array, end: Array) -> Array:
    """Distance of each pixel's colour from the line between two colours: the sky's and that of what glows in it."""
    along = ((pixels - start) * (end - start)).sum(-1) / np.square(end - start).sum(-1)
    return distance(pixels, start + (end - start) * np.clip(along, 0, 1)[..., None])


def nearest(colour: Array, palette: dict) -> tuple:
    """The key of the palette's entry closest to a colour (3,)."""
    return min(palette, key=lambda key: float(np.linalg.norm(palette[key] - colour)))


@cache
def top_colours() -> dict[tuple[str, str], Array]:
    return {(time, sky): scenes.sky_colours(time, sky)[0] for time in TIMES for sky in SKIES}


def read_sky(image: Array) -> tuple[str, str]:
    """(time, sky) by the median of the top rows, where no glow and no peak reaches."""
    return nearest(np.median(image[:7].reshape(-1, 3), axis=0), top_colours())


def read_ground(image: Array, time: str, sky: str) -> str:
    """By the median of the last rows, which are foreground in every scene."""
    into = np.full((1, 1), 0.5, np.float32)
    palette = {g: scenes.ground_colour(time, sky, g, 2, into)[0, 0] for g in GROUNDS}
    return nearest(np.median(image[121:].reshape(-1, 3), axis=0), palette)


def read_body(image: Array, time: str) -> str:
    """Where a disc of the sun's (at night the moon's) colour stands, if anywhere."""
    off = distance(image[8:36], scenes.body_colour(time))
    size = 7
    squares = np.lib.stride_tricks.sliding_window_view(off, (size, size)).mean((-1, -2))
    best = {
        place: float(squares[:, int(column) - 10 - size // 2 : int(column) + 11 - size // 2].min())
        for place, column in BODY_COLUMN.items()
    }
    place = min(best, key=best.__getitem__)
    return place if best[place] < 0.2 else "none"


def read_ridges(image: Array, time: str, sky: str) -> int:
    """Each nearer chain is less hazy: its colour at the mountains' foot tells how many there are."""
    half = np.full((SIZE, SIZE), 0.5, np.float32)
    rows = slice(HORIZON - 5, HORIZON - 1)
    votes = np.stack([distance(image, scenes.rock_colour(time, sky, i, half))[rows] for i in range(3)])
    return 1 + int(np.bincount(votes.argmin(0).ravel(), minlength=3).argmax())


def read_snow(image: Array, time: str, sky: str) -> bool:
    """Whether enough pixels of the upper mountains are closer to snow than to rock or sky."""
    lights = [np.full((SIZE, SIZE), light, np.float32) for light in (0.0, 0.5, 1.0)]
    rows = slice(30, 62)
    snow = np.min([distance(image, scenes.snow_colour(time, sky, lit))[rows] for lit in lights], axis=0)
    rock = np.min(
        [distance(image, scenes.rock_colour(time, sky, i, lit))[rows] for lit in lights for i in range(2)], axis=0
    )
    glow = off_segment(image, scenes.sky_gradient(time, sky), scenes.body_colour(time))[rows]
    white = (snow < rock) & (snow < 0.2) & (snow < glow)
    return bool(white.mean() > 0.012)


def read_lake(image: Array, time: str, sky: str, ground: str) -> bool:
    """Whether the band before the mountains has another colour than the far ground would have."""
    rows = slice(HORIZON + 5, SHORE - 5)
    into = np.broadcast_to(np.clip((scenes.ROWS - HORIZON) / 16, 0, 1), (SIZE, SIZE))
    off = distance(image, scenes.ground_colour(time, sky, ground, 0, into))[rows]
    return bool(np.median(off) > LAKE_OFF[time])


LAKE_OFF = {"day": 0.055, "sunset": 0.047, "night": 0.032}  # halfway: ground stays below 0.01, water above 0.06


@dataclass(frozen=True)
class Reading:
    time: str
    sky: str
    body: str
    ridges: int
    snow: bool
    lake: bool
    ground: str

    def right(self, scene: Scene) -> NDArray[np.bool_]:
        """Which of the seven slots are as in `scene`, in the order of SLOTS."""
        return np.array([getattr(self, slot) == getattr(scene, slot) for slot in scenes.SLOTS])


def read(image: Array) -> Reading:
    """image (128, 128, 3) in [0, 1]"""
    time, sky = read_sky(image)
    ground = read_ground(image, time, sky)
    return Reading(
        time, sky, read_body(image, time), read_ridges(image, time, sky), read_snow(image, time, sky),
        read_lake(image, time, sky, ground), ground,
    )  # fmt: skip


def read_depth(image: Array, scene: Scene) -> Array:
    """(rows above the land, 128): how near each pixel looks, by the nearest colour of sky, chains of mountains and snow.

    `scene` says which of them there are and in what colours; where they are is read from the picture. The land, whose
    place is the same in every scene, is left out.
    """
    time, sky = scene.time, scene.sky
    lights = [np.full((SIZE, SIZE), light, np.float32) for light in (0.0, 0.25, 0.5, 0.75, 1.0)]
    gradient = scenes.sky_gradient(time, sky)
    glowing = off_segment(image, gradient, scenes.body_colour(time))
    layers = {0.0: distance(image, gradient) if scene.body == "none" else glowing}
    for index in range(scene.ridges):
        rocks = [distance(image, scenes.rock_colour(time, sky, index, light)) for light in lights]
        snows = [distance(image, scenes.snow_colour(time, sky, light)) for light in lights]
        layers[scenes.ridge_depth(index)] = np.min(rocks + (snows if scene.snow and index == 0 else []), axis=0)
    depths, off = np.array(list(layers), np.float32), np.stack(list(layers.values()))
    return depths[off.argmin(0)][: HORIZON - 3]
