"""Measures that are right where the answer is known, and tasks that training never showed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from flux_core.canny import canny_edges
from painter import tasks
from painter.language import KINDS
from painter.scenes import SLOTS, draw, held_out, random_scene
from painter.scores import crispness, depth_order, edge_f1, psnr, seam, slots_right


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.stack([draw(scene).image for scene in tasks.scenes(24)])


def shifted(pictures: np.ndarray, pixels: int) -> np.ndarray:
    return np.roll(pictures, pixels, axis=2)


def test_half_of_the_scenes_are_combinations_kept_from_training():
    assert [held_out(scene) for scene in tasks.scenes(10)] == [False, True] * 5


def test_a_task_is_always_the_same():
    assert tasks.edits("sky", 4) == tasks.edits("sky", 4)
    assert all(
        (a.mask == b.mask).all() for a, b in zip(tasks.fills("border", 4), tasks.fills("border", 4), strict=True)
    )


def test_what_a_fill_task_leaves_unmasked_is_already_right():
    for kind in set(tasks.FILLS) - {"sky"}:  # another sky would tint the land too
        for task in tasks.fills(kind, 6):
            assert np.abs(task.before - task.truth)[~task.mask].mean() < 0.02  # a masked sun's outer glow stays
            assert task.mask.any()


def test_two_edits_in_a_row_are_both_still_there_at_the_end():
    for first, second in tasks.chains(20):
        for told in (first, second):
            for slot in np.array(SLOTS)[tasks.told_slots(told)]:
                assert getattr(told.after, slot) == getattr(second.after, slot)


def test_every_edit_changes_something():
    assert all(tasks.told_slots(told).any() for kind in KINDS for told in tasks.edits(kind, 12))


def test_psnr_is_opencvs(truth: np.ndarray):
    noisy = np.clip(truth[:1] + np.random.default_rng(0).normal(0, 0.05, truth[:1].shape), 0, 1)
    everywhere = np.ones(noisy.shape[:3], bool)
    assert psnr(noisy, truth[:1], everywhere)[0] == pytest.approx(
        cv2.PSNR(noisy[0], truth[0].astype(float), 1.0), abs=1e-6
    )


def test_psnr_looks_only_where_it_is_told(truth: np.ndarray):
    where = np.zeros(truth.shape[:3], bool)
    where[:, :9] = True
    spoiled = truth.copy()
    spoiled[:, 9:] = 0
    assert (psnr(spoiled, truth, where) > 80).all()


def test_true_edges_have_f1_of_one_and_moved_ones_less(truth: np.ndarray):
    edges = canny_edges(torch.from_numpy(truth)).numpy()
    assert (edge_f1(truth, edges) == 1).all()
    assert (edge_f1(shifted(truth, 2), edges) > 0.9).all()  # within reach
    assert edge_f1(shifted(truth, 12), edges).mean() < 0.75


def test_true_depth_is_read_right_and_another_scenes_is_not(truth: np.ndarray):
    wanted = tasks.scenes(24)
    assert depth_order(truth, wanted).mean() > 0.99
    other_mountains = [replace(scene, seed=scene.seed + 1) for scene in wanted]
    assert depth_order(truth, other_mountains).mean() < 0.93


def test_a_blurred_picture_is_less_crisp(truth: np.ndarray):
    blurred = np.stack([cv2.GaussianBlur(picture, (0, 0), 2) for picture in truth])
    assert crispness(blurred).mean() < 0.5 * crispness(truth).mean()


def test_a_pasted_grey_has_a_seam(truth: np.ndarray):
    masks = np.zeros(truth.shape[:3], bool)
    masks[:, 4:24, 10:60] = True
    pasted = np.where(masks[..., None], 0.5, truth)
    assert seam(pasted, masks).mean() > 5 * seam(truth, masks).mean()


def test_slots_of_a_shuffled_sheet_are_wrong(truth: np.ndarray):
    wanted = tasks.scenes(24)
    assert slots_right(truth, wanted).mean() > 0.99
    assert slots_right(truth[::-1], wanted).all(1).mean() < 0.2


def test_random_scenes_reach_every_combination():
    rng = np.random.default_rng(0)
    assert len({(s.time, s.sky, s.ground) for s in (random_scene(rng) for _ in range(2000))}) == 90
