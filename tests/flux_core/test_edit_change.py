"""The change mask against the object that was painted, after registration, over all drifts."""

from itertools import cycle

import cv2
import numpy as np
import pytest
import torch

from flux_core.edit.align import register, undone
from flux_core.edit.change import changed, recoloured
from tests.flux_core.synthetic_edits import DRIFTS, Drift, edit, photographs

SHARES = (0.02, 0.4, 0.05, 0.0, 0.2, 0.1)


def found_and_painted(source: np.ndarray, drift: Drift, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As the nodes do it: laid back, what lies outside filled, then compared."""
    one = edit(source, drift, share, seed)
    registration = register(one.source, one.edited)
    if not registration.to_undo:
        return changed(one.source, one.edited)[0].numpy() > 0, one.changed
    laid, outside = undone(one.edited, registration.found)
    laid = torch.where(outside[..., None] > 0, recoloured(one.source, laid), laid)
    return changed(one.source, laid)[0].numpy() > 0, one.changed & (outside.numpy() == 0)


@pytest.mark.parametrize("name", DRIFTS)
def test_the_mask_is_the_painted_object(name):
    """At an intersection over union of 0.8 or more; nothing where nothing was painted."""
    drift = DRIFTS[name]
    pictures = list(photographs().values())[1 :: 3 if drift.blurred else 1]
    for seed, (source, share) in enumerate(zip(pictures, cycle(SHARES))):
        found, painted = found_and_painted(source, drift, share, seed)
        if not share:
            assert not found.any()
        else:
            assert (found & painted).sum() / (found | painted).sum() >= 0.8


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_strong_noise_is_no_change(share):
    one = edit(photographs()["astronaut"], Drift(noise=0.2), share)
    found = changed(one.source, one.edited)[0].numpy() > 0
    assert (found & one.changed).sum() >= 0.8 * (found | one.changed).sum()


def with_ring() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    source = photographs()["retina"]
    ring = cv2.circle(np.zeros(source.shape[:2], np.uint8), (150, 160), 60, 1, 8) > 0
    edited = np.where(ring[..., None], np.float32([0.1, 0.9, 0.2]), source)
    return torch.from_numpy(source), torch.from_numpy(edited), ring


def test_holes_are_filled_if_wanted():
    source, edited, ring = with_ring()
    whole = cv2.circle(np.zeros(ring.shape, np.uint8), (150, 160), 64, 1, cv2.FILLED) > 0
    for holes, painted in ((True, whole), (False, ring)):
        found = changed(source, edited, holes=holes)[0].numpy() > 0
        assert (found & painted).sum() / (found | painted).sum() >= 0.7


def test_islands_below_the_least_size_are_left_out():
    source, edited, ring = with_ring()
    share = ring.mean()
    assert changed(source, edited, least=share / 2, holes=False)[0].any()
    assert not changed(source, edited, least=share * 2, holes=False)[0].any()


def test_a_threshold_of_one_s_own_counts():
    source = torch.full((120, 160, 3), 0.4)
    edited = source.clone()
    edited[30:60, 40:90] += 0.1
    edited[70:100, 40:90] += 0.2
    for threshold, rows in ((0.05, [45, 85]), (0.15, [85]), (0.3, [])):
        found, said = changed(source, edited, threshold)
        assert said == threshold
        assert [row for row in (10, 45, 85) if found[row, 65]] == rows


def test_colours_are_followed_whatever_an_object_does():
    """A gain for each channel and a smooth field, seen at one: no pixel is clipped."""
    for seed, source in enumerate(photographs().values()):
        source = 0.1 + 0.7 * source
        one = edit(source, Drift(gains=(1.06, 0.95, 0.9), field=0.08), 0.2, seed)
        left = (recoloured(one.source, one.edited) - one.edited).abs().mean(-1).numpy()[~one.changed]
        before = (one.source - one.edited).abs().mean(-1).numpy()[~one.changed]
        assert left.mean() < max(0.01, before.mean() / 3)


@pytest.mark.parametrize("edited_by", ["night", "another picture", "negative"])
def test_an_edit_of_everything_is_a_change_of_everything(edited_by):
    """Not a drift of everything, after which the picture would be as it was, nor patches of it."""
    pictures = photographs()
    source = torch.from_numpy(pictures["chelsea"])
    other = torch.from_numpy(cv2.resize(pictures["rocket"], source.shape[1::-1]))
    edited = {"night": source * torch.tensor([0.2, 0.25, 0.4]), "another picture": other, "negative": 1 - source}
    assert changed(source, edited[edited_by])[0].all()
