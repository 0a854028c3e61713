"""The generator: one scene is one picture, and an edit touches what it names and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from painter.language import KINDS, edit
from painter.scenes import HORIZON, REGIONS, SHORE, Scene, changed, draw, random_scene

SCENE = Scene(time="day", sky="blue", body="left", ridges=2, snow=True, lake=True, ground="meadow", seed=5)


def some_scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def test_a_scene_is_always_the_same_picture():
    assert all(np.array_equal(draw(scene).image, draw(scene).image) for scene in some_scenes(4))


def test_another_seed_is_another_picture():
    assert changed(SCENE, replace(SCENE, seed=6)).mean() > 0.2


def test_pixels_are_colours():
    for scene in some_scenes(10):
        image = draw(scene).image
        assert image.shape == (128, 128, 3) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1


def test_changing_the_ground_leaves_everything_above_it():
    assert not changed(SCENE, replace(SCENE, ground="clay"))[: SHORE - 5].any()


def test_adding_a_lake_leaves_everything_above_the_horizon():
    assert not changed(replace(SCENE, lake=False), SCENE)[: HORIZON - 2].any()


def test_snow_falls_on_mountains_only():
    bare = replace(SCENE, snow=False, lake=False)
    before, after = draw(bare), draw(replace(bare, snow=True))
    differs = changed(bare, replace(bare, snow=True))
    assert np.isin(before.regions[differs], [REGIONS.index("ridge"), REGIONS.index("sky")]).all()
    assert (after.regions[differs] == REGIONS.index("snow")).mean() > 0.8


def test_removing_the_sun_leaves_the_land():
    dry = replace(SCENE, lake=False)
    differs = changed(dry, replace(dry, body="none"))
    sky = np.isin(draw(dry).regions, [REGIONS.index("sky"), REGIONS.index("body")])
    beside = sky | np.roll(sky, 1, axis=0)  # the outline's own pixels are part sky
    assert beside[differs].all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_keeps_the_mountains_outline(kind: str):
    rng = np.random.default_rng(1)
    told = edit(SCENE, kind, rng)
    mountain = [REGIONS.index("ridge"), REGIONS.index("snow")]
    before, after = (np.isin(draw(s).regions, mountain)[: HORIZON - 3] for s in (told.before, told.after))
    assert np.array_equal(before, after)


def test_what_is_nearer_is_deeper_in_the_map():
    picture = draw(SCENE)
    assert picture.depth[2, 64] < picture.depth[80, 64] < picture.depth[95, 64] < picture.depth[126, 64]
