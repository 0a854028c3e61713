"""What is said about a scene is true of it, and an instruction changes something."""

import numpy as np
import pytest

from painter.language import KINDS, SKY_WORDS, caption, edit, plain_caption
from painter.scenes import SLOTS, random_scene


def test_a_caption_names_every_slot_unless_some_are_dropped():
    rng = np.random.default_rng(0)
    assert set(caption(random_scene(rng), rng)[1]) == set(SLOTS)
    assert len(caption(random_scene(rng), rng, drop=1.0)[1]) == 0


def test_a_caption_names_the_sky_of_its_scene():
    rng = np.random.default_rng(0)
    for scene in (random_scene(rng) for _ in range(20)):
        said = caption(scene, rng)[0]
        assert any(word in said for word in SKY_WORDS[scene.sky])
        assert scene.sky in plain_caption(scene)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_something_and_keeps_the_seed(kind: str):
    rng = np.random.default_rng(2)
    for scene in (random_scene(rng) for _ in range(20)):
        told = edit(scene, kind, rng)
        assert told.before != told.after and told.before.seed == told.after.seed == scene.seed
        assert told.instruction


def test_an_unknown_kind_is_refused_with_the_known_ones():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="add lake"):
        edit(random_scene(rng), "add unicorn", rng)
