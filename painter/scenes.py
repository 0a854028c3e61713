"""Landscapes drawn from one small dict and a seed: the picture, its regions and its depth.

Every element draws its shape from a random stream of its own, so that changing a slot changes that element and
nothing else: an edited scene with the same seed is the exact target of an edit.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIZE = 128
TIMES = ("day", "sunset", "night")
SKIES = ("blue", "pink", "orange", "purple", "green", "yellow")
BODIES = ("none", "left", "centre", "right")
GROUNDS = ("meadow", "wheat", "lavender", "clay", "stone")
REGIONS = ("sky", "body", "ridge", "snow", "lake", "ground")

HORIZON = 86  # row where the land begins
SHORE = 105  # row where a lake ends and the foreground begins
ROWS, COLUMNS = (a.astype(np.float32) for a in np.mgrid[0:SIZE, 0:SIZE])
LINE = np.arange(SIZE, dtype=np.float32)
BODY_COLUMN = {"left": 25.0, "centre": 64.0, "right": 103.0}

SKY_COLOUR = {
    "blue": (78, 142, 226), "pink": (238, 124, 170), "orange": (244, 146, 70),
    "purple": (148, 98, 214), "green": (84, 186, 136), "yellow": (244, 208, 84),
}  # fmt: skip
GROUND_COLOUR = {
    "meadow": (104, 158, 62), "wheat": (222, 180, 84), "lavender": (142, 102, 190),
    "clay": (184, 84, 58), "stone": (134, 138, 144),
}  # fmt: skip
ROCK = np.array((84, 86, 112), np.float32) / 255
WARM = np.array((255, 176, 104), np.float32) / 255
AMBIENT = {"day": (1.0, 1.0, 1.0), "sunset": (0.86, 0.64, 0.6), "night": (0.36, 0.4, 0.56)}


@dataclass(frozen=True)
class Scene:
    """Seven slots and a light side, in words; with a seed they are a picture."""

    time: Literal["day", "sunset", "night"] = "day"
    sky: str = "blue"
    body: str = "none"
    ridges: int = 2
    snow: bool = False
    lake: bool = False
    ground: str = "meadow"
    light: str = "left"
    seed: int = 0


SLOTS = ("time", "sky", "body", "ridges", "snow", "lake", "ground")


@dataclass(frozen=True)
class Picture:
    """image (128, 128, 3) in [0, 1]; regions (128, 128) indices into REGIONS; depth (128, 128), 0 far and 1 near."""

    image: Array
    regions: NDArray[np.uint8]
    depth: Array


def held_out(scene: Scene) -> bool:
    """Whether the scene's time, sky and ground are one of the nine of ninety combinations that training never shows."""
    return (TIMES.index(scene.time) + 2 * SKIES.index(scene.sky) + 3 * GROUNDS.index(scene.ground) + 2) % 10 == 0


def random_scene(rng: np.random.Generator) -> Scene:
    body = str(rng.choice(BODIES))
    return Scene(
        time=str(rng.choice(TIMES)),
        sky=str(rng.choice(SKIES)),
        body=body,
        ridges=int(rng.integers(1, 4)),
        snow=bool(rng.random() < 0.5),
        lake=bool(rng.random() < 0.5),
        ground=str(rng.choice(GROUNDS)),
        light=body if body in ("left", "right") else str(rng.choice(["left", "right"])),
        seed=int(rng.integers(2**31)),
    )


def stream(scene: Scene, element: str) -> np.random.Generator:
    return np.random.default_rng([scene.seed, *element.encode()])


def rgb(colour: tuple[int, int, int]) -> Array:
    return np.array(colour, np.float32) / 255


def mix(a: Array, b: Array, amount: float | Array) -> Array:
    return a + (b - a) * amount


def sky_colours(time: str, sky: str) -> tuple[Array, Array]:
    """The sky at the top of the picture and at the horizon."""
    base, white = rgb(SKY_COLOUR[sky]), np.ones(3, np.float32)
    if time == "day":
        return base, mix(base, white, 0.72)
    if time == "sunset":
        return base * 0.72, mix(mix(base, WARM, 0.6), white, 0.12)
    return base * 0.3, base * 0.62


def sky_gradient(time: str, sky: str) -> Array:
    """(128, 128, 3)"""
    high, low = sky_colours(time, sky)
    return mix(high, low, np.clip((ROWS - 14) / (HORIZON - 22), 0, 1)[..., None] ** 1.15).astype(np.float32)


def rock_colour(time: str, sky: str, index: int, lit: Array) -> Array:
    """Mountains of chain `index` where they are `lit` (128, 128) in [0, 1]: hazier when farther and towards the foot."""
    rock = ROCK * np.array(AMBIENT[time], np.float32) * (0.74 + 0.5 * lit[..., None])
    haze = (0.46, 0.22, 0.04)[index] + 0.22 * np.clip((ROWS - 52) / 34, 0, 1)[..., None]
    return mix(rock * (1.12, 0.92, 0.7)[index], sky_colours(time, sky)[1], haze)


def snow_colour(time: str, sky: str, lit: Array) -> Array:
    white = mix(np.array((0.66, 0.74, 0.9), np.float32), np.ones(3, np.float32), lit[..., None])
    return mix(white * (0.25 + 0.75 * np.array(AMBIENT[time], np.float32)), sky_colours(time, sky)[1], 0.06)


def ground_colour(time: str, sky: str, ground: str, index: int, into: Array) -> Array:
    """Ground layer `index`, lighter at its top edge: `into` (128, 128) goes from 0 there to 1."""
    shade = (0.98, 0.88, 0.76)[index] + 0.16 * (1 - into[..., None])
    colour = rgb(GROUND_COLOUR[ground]) * np.array(AMBIENT[time], np.float32) * shade
    return mix(colour, sky_colours(time, sky)[1], (0.2, 0.06, 0.0)[index])


def zigzag(x: Array) -> Array:
    """A triangle wave of period 1 between -1 and 1."""
    return 4 * np.abs(x - np.floor(x + 0.5)) - 1


def cover(canvas: Array, colour: Array, alpha: Array) -> None:
    canvas += (colour - canvas) * alpha[..., None]


@dataclass(frozen=True)
class Ridge:
    """One chain of mountains: its top row per column, its light, and how far below its own peak each pixel lies."""

    top: Array
    lit: Array
    below_peak: Array


def ridge(scene: Scene, index: int) -> Ridge:
    """index 0 is the farthest and tallest chain."""
    rng = stream(scene, f"ridge{index}")
    count, height, spread, slope = ((3, 38, 7, 0.95), (4, 60, 4, 0.75), (5, 73, 3, 0.5))[index]
    columns = (np.arange(-1, count + 1) + 0.5 + rng.uniform(-0.3, 0.3, count + 2)) * SIZE / count
    rows = height + rng.uniform(-spread, spread, count + 2)
    slopes = slope * rng.uniform(0.8, 1.25, count + 2)
    jag = np.interp(LINE, np.arange(0, SIZE + 6, 6), rng.uniform(-1.2, 1.2, SIZE // 6 + 2))
    heights = rows[:, None] + slopes[:, None] * np.abs(LINE - columns[:, None]) + jag
    owner = heights.argmin(0)
    top = heights.min(0).astype(np.float32)
    below = ROWS - rows[owner].astype(np.float32)
    period, phase = rng.uniform(11, 16, count + 2), rng.random(count + 2)
    crest = columns[owner] + 0.22 * below * rng.uniform(-1, 1, count + 2)[owner]
    crest = crest + 2.6 * zigzag(below / period[owner] + phase[owner])
    side = np.clip((crest - COLUMNS) / 1.6, -0.5, 0.5) + 0.5
    lit = side if scene.light == "left" else 1 - side
    lit = 0.5 + (lit - 0.5) * np.clip(1.25 - below / 46, 0.1, 1)  # facets dissolve into mist towards the foot
    return Ridge(top, lit.astype(np.float32), below)


def ridge_depth(index: int) -> float:
    return 0.2 + 0.15 * index


def draw(scene: Scene) -> Picture:
    """The whole picture, from the sky to the foreground."""
    canvas = sky_gradient(scene.time, scene.sky)
    regions = np.zeros((SIZE, SIZE), np.uint8)
    depth = np.zeros((SIZE, SIZE), np.float32)

    if scene.time == "night":
        draw_stars(scene, canvas)
    if scene.body != "none":
        regions[draw_body(scene, canvas)] = REGIONS.index("body")

    for index in range(scene.ridges):
        chain = ridge(scene, index)
        alpha = np.clip(ROWS - chain.top + 0.5, 0, 1)
        colour = rock_colour(scene.time, scene.sky, index, chain.lit)
        regions[alpha > 0.5], depth[alpha > 0.5] = REGIONS.index("ridge"), ridge_depth(index)
        if scene.snow and index == 0:
            white = snow_colour(scene.time, scene.sky, chain.lit)
            edge = 15 + 3.5 * zigzag(COLUMNS / 9 + chain.lit * 0.4)
            snow = np.clip(edge - chain.below_peak + 0.5, 0, 1)
            colour = mix(colour, white, snow[..., None])
            regions[(alpha > 0.5) & (snow > 0.5)] = REGIONS.index("snow")
        cover(canvas, colour, alpha)

    draw_ground(scene, canvas, regions, depth)
    return Picture(np.clip(canvas, 0, 1), regions, depth)


def draw_stars(scene: Scene, canvas: Array) -> None:
    rng = stream(scene, "stars")
    for row, column, bright in zip(
        rng.uniform(2, 46, 10), rng.uniform(2, 126, 10), rng.uniform(0.5, 1, 10), strict=True
    ):
        glow = np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / 1.2)
        cover(canvas, np.ones(3, np.float32), glow * bright)


def draw_body(scene: Scene, canvas: Array) -> NDArray[np.bool_]:
    """The sun, or at night the moon, with its glow; returns its disc as a mask."""
    rng = stream(scene, "body")
    column = BODY_COLUMN[scene.body] + rng.uniform(-3, 3)
    row = {"day": 19, "sunset": 27, "night": 20}[scene.time] + rng.uniform(-2, 2)
    colour = body_colour(scene.time)
    distance = np.hypot(ROWS - row, COLUMNS - column)
    radius = 8.5 if scene.time != "sunset" else 9.5
    cover(canvas, colour, 0.55 * np.exp(-((distance / 19) ** 2)))
    disc = np.clip(radius - distance + 0.5, 0, 1)
    cover(canvas, colour, disc)
    return disc > 0.5


def body_colour(time: str) -> Array:
    return rgb({"day": (255, 250, 222), "sunset": (255, 226, 150), "night": (226, 232, 246)}[time])


def draw_ground(scene: Scene, canvas: Array, regions: NDArray[np.uint8], depth: Array) -> None:
    """Three rolling layers; a lake takes the place of the farthest."""
    rng = stream(scene, "ground")
    tops = []
    for index, row in enumerate((HORIZON, SHORE, 114)):
        waves = rng.uniform(0.5, 1, 2) * ((0.9, 0.5), (2.0, 0.9), (2.6, 1.0))[index]
        phases, periods = rng.random(2), rng.uniform(70, 110, 2) * (1, 0.45)
        tops.append(row + (waves[:, None] * np.sin(2 * np.pi * (LINE / periods[:, None] + phases[:, None]))).sum(0))
    nearness = np.clip((ROWS - HORIZON) / (SIZE - HORIZON), 0, 1)

    for index, top in enumerate(tops):
        alpha = np.clip(ROWS - top + 0.5, 0, 1).astype(np.float32)
        if index == 0 and scene.lake:
            alpha = np.clip(ROWS - HORIZON + 0.5, 0, 1)
            colour, region = lake(scene, canvas), "lake"
        else:
            into = np.clip((ROWS - top) / 16, 0, 1)
            furrow = 0.05 * np.sin(2 * np.pi * (COLUMNS - 64) / (2.5 + 0.32 * (ROWS - 70).clip(4))) * nearness
            colour = ground_colour(scene.time, scene.sky, scene.ground, index, into) * (1 + furrow[..., None])
            region = "ground"
        covered = alpha > 0.5
        regions[covered], depth[covered] = REGIONS.index(region), 0.65 + 0.35 * nearness[covered]
        cover(canvas, colour, alpha)


def lake(scene: Scene, canvas: Array) -> Array:
    """The water's colour everywhere: what stands above the horizon, mirrored, rippled and tinted."""
    rng = stream(scene, "lake")
    down = np.clip(ROWS - HORIZON, 0, None)
    ripple = zigzag(down / 4.5 + rng.random()) * (0.4 + 0.06 * down)
    rows = np.clip(HORIZON - 1 - down * 2.1 + ripple, 0, SIZE - 1).astype(int)
    columns = np.clip(COLUMNS + 0.6 * ripple, 0, SIZE - 1).astype(int)
    ambient, low = np.array(AMBIENT[scene.time], np.float32), sky_colours(scene.time, scene.sky)[1]
    water = mix(low, np.array((0.34, 0.58, 0.78), np.float32) * ambient, 0.55)
    glint = 0.07 * np.clip(zigzag(down / 4.5 + rng.random()), 0, 1)[..., None]
    return mix(canvas[rows, columns], water, 0.5) + glint * low


def changed(before: Scene, after: Scene) -> NDArray[np.bool_]:
    """(128, 128): the pixels that differ between two scenes."""
    return (np.abs(draw(before).image - draw(after).image) > 2 / 255).any(-1)
