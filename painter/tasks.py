"""What the family is tested with: scenes that training never showed, and what is asked about them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from painter.language import KINDS, LANDSCAPE_ONLY, Edit, caption, edit, plain_caption
from painter.masks import around_body, region
from painter.scenes import SIZE, SLOTS, Array, Scene, draw, held_out, random_scene

SEED = 77_001  # of no training scene


def scenes(count: int, salt: int = 0) -> list[Scene]:
    """Every other one a combination of time, sky and ground that training never showed, all of them new seeds."""
    rng = np.random.default_rng([SEED, salt])
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng)
        if held_out(scene) == (len(found) % 2 == 1):
            found.append(scene)
    return found


@dataclass(frozen=True)
class FillTask:
    """A picture, where to paint it anew, what is said, and the scene and picture that are then right."""

    before: Array
    mask: NDArray[np.bool_]
    prompt: str
    scene: Scene

    @property
    def truth(self) -> Array:
        return draw(self.scene).image


def box(top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def sky_box(scene: Scene, rng: np.random.Generator) -> FillTask:
    """By day or at sunset and without a sun, as nobody could guess stars."""
    scene = replace(scene, body="none", time="day" if scene.time == "night" else scene.time)
    return FillTask(draw(scene).image, box(2, int(rng.integers(4, 70)), 26, 50), plain_caption(scene), scene)


def ground_box(scene: Scene, rng: np.random.Generator) -> FillTask:
    """All of it on land: without a lake."""
    scene = replace(scene, lake=False)
    return FillTask(draw(scene).image, box(100, int(rng.integers(4, 70)), 24, 50), plain_caption(scene), scene)


def shore_box(scene: Scene, rng: np.random.Generator) -> FillTask:
    """Over a lake's edge and the reflections in it, which nobody could guess exactly."""
    scene = replace(scene, lake=True)
    return FillTask(draw(scene).image, box(100, int(rng.integers(4, 70)), 24, 50), plain_caption(scene), scene)


def border(scene: Scene, rng: np.random.Generator) -> FillTask:
    mask = box(0, 0, SIZE, SIZE)
    mask[24:-24, 24:-24] = False
    return FillTask(draw(scene).image, mask, caption(scene, rng)[0], scene)


def sun(scene: Scene, rng: np.random.Generator) -> FillTask:
    """The sun or moon masked, nothing but landscape asked for."""
    before = draw(replace(scene, body=scene.light))
    return FillTask(before.image, around_body(before, rng), LANDSCAPE_ONLY[0], replace(scene, body="none"))


def sky(scene: Scene, rng: np.random.Generator) -> FillTask:
    """The whole sky masked, another one asked for."""
    told = edit(scene, "sky", rng)
    before = draw(told.before)
    return FillTask(before.image, region(before, ("sky", "body")), caption(told.after, rng)[0], told.after)


FILLS: dict[str, Callable[[Scene, np.random.Generator], FillTask]] = {
    "sky box": sky_box, "ground box": ground_box, "shore box": shore_box, "border": border, "sun": sun, "sky": sky,
}  # fmt: skip


def fills(kind: str, count: int) -> list[FillTask]:
    rng = np.random.default_rng([SEED, 100, *kind.encode()])
    return [FILLS[kind](scene, rng) for scene in scenes(count, salt=1)]


def edits(kind: str, count: int) -> list[Edit]:
    rng = np.random.default_rng([SEED, 200, KINDS.index(kind)])
    return [edit(scene, kind, rng) for scene in scenes(count, salt=2)]


def told_slots(told: Edit) -> NDArray[np.bool_]:
    """(7,): the slots that an edit changes."""
    return np.array([getattr(told.before, slot) != getattr(told.after, slot) for slot in SLOTS])


def chains(count: int) -> list[tuple[Edit, Edit]]:
    """Two edits in a row that don't undo each other."""
    rng = np.random.default_rng([SEED, 300])
    found: list[tuple[Edit, Edit]] = []
    for scene in scenes(count, salt=3):
        while True:
            kinds = rng.choice(KINDS, 2, replace=False)
            first = edit(scene, str(kinds[0]), rng)
            second = edit(first.after, str(kinds[1]), rng)
            if second.before == first.after and not (told_slots(first) & told_slots(second)).any():
                found.append((first, second))
                break
    return found
