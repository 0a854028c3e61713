"""Masks ask for something and leave something."""

import numpy as np

from painter.masks import around_body, random_mask, region
from painter.scenes import REGIONS, Scene, draw


def test_every_random_mask_asks_for_something_and_leaves_something():
    rng, picture = np.random.default_rng(0), draw(Scene(lake=True, body="left", seed=3))
    shares = [random_mask(picture, rng).mean() for _ in range(60)]
    assert min(shares) > 0 and max(shares) < 1


def test_a_mask_around_the_sun_covers_it():
    rng, picture = np.random.default_rng(0), draw(Scene(body="right", seed=3))
    sun = picture.regions == REGIONS.index("body")
    assert all((around_body(picture, rng) & sun).sum() > 0.9 * sun.sum() for _ in range(20))


def test_a_region_grows_by_its_margin_only():
    picture = draw(Scene(lake=True, seed=3))
    tight, wide = region(picture, ("lake",), 0), region(picture, ("lake",), 2)
    assert (wide | tight).sum() == wide.sum() > tight.sum()
