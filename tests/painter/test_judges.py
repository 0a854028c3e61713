"""The judges read true renders, so that a lower score is the model's."""

import numpy as np
import pytest

from painter.judges import read
from painter.scenes import SLOTS, draw, random_scene


@pytest.fixture(scope="module")
def rights() -> np.ndarray:
    rng = np.random.default_rng(123)
    scenes = [random_scene(rng) for _ in range(200)]
    return np.stack([read(draw(scene).image).right(scene) for scene in scenes])


@pytest.mark.parametrize("slot", SLOTS)
def test_true_renders_are_read_right(rights: np.ndarray, slot: str):
    assert rights[:, SLOTS.index(slot)].mean() >= 0.99


def test_noise_is_not_read_as_what_was_wanted():
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(50)]
    noise = [rng.random((128, 128, 3), dtype=np.float32) for _ in scenes]
    assert np.stack([read(n).right(s) for n, s in zip(noise, scenes, strict=True)]).mean() < 0.5
