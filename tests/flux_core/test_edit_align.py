"""Registration against OpenCV's warps: what an editor moved is found and undone, whatever else it did."""

from itertools import cycle, islice, pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from flux_core.edit.align import Registration, Similarity, register, undone
from tests.flux_core.synthetic_edits import DRIFTS, Drift, Edit, edit, photographs

SHARES = (0.4, 0.0, 0.1)


def edits(drift: Drift) -> list[Edit]:
    """The photographs, each with an object over another share of it; fewer where the slow autoencoder is asked."""
    pictures = list(photographs().values())[:: 3 if drift.blurred else 1]
    return [edit(*one, seed=seed) for seed, one in enumerate(zip(pictures, cycle([drift]), cycle(SHARES)))]


def error(truth: Edit, found: Similarity) -> float:
    """Mean distance, over the picture, of where a point is from where it is said to be."""
    height, width = truth.source.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    x, y = (truth.points() - middle).T
    said = found.turn * (x + 1j * y) + found.shift
    return np.linalg.norm(np.stack([said.real, said.imag], -1) + middle - truth.moved(), axis=1).mean()


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_is_found_to_a_quarter_pixel_and_never_made_worse(name):
    drift = DRIFTS[name]
    done = [(one, register(one.source, one.edited)) for one in edits(drift)]
    errors = [error(one, result.found) for one, result in done]
    assert np.median(errors) <= 0.25 and max(errors) <= 0.5
    assert np.median([abs(result.found.scale - drift.scale) for _, result in done]) <= 0.0005
    for (one, result), left in zip(done, errors, strict=True):
        assert not result.doubt
        assert not result.to_undo or left < error(one, Similarity())
        assert result.to_undo or error(one, Similarity()) <= 0.05
        assert left <= 5 * max(result.uncertainty, 0.01)


def moved_part(source: np.ndarray) -> Tensor:
    """40 % of the picture slid by 14 pixels as one, the rest by 2."""
    height, width = source.shape[:2]
    all_by, part_by = (
        cv2.warpAffine(source, np.float32([[1, 0, x], [0, 1, y]]), (width, height), borderMode=cv2.BORDER_REFLECT_101)
        for x, y in ((2, 0), (11, 9))
    )
    all_by[:, : int(0.4 * width)] = part_by[:, : int(0.4 * width)]
    return torch.from_numpy(all_by)


def test_what_most_of_the_picture_does_counts():
    for source in islice(photographs().values(), 6):
        result = register(torch.from_numpy(source), moved_part(source))
        assert abs(result.found.shift - 2) < 0.25 and abs(result.found.turn - 1) < 0.001


def hopeless() -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    cut = {name: torch.from_numpy(picture[:280, :280]) for name, picture in photographs().items()}
    noise = torch.rand(2, 200, 200, 3)
    flat = torch.full((120, 90, 3), 0.5)
    return {
        **{f"{a} is not {b}": (cut[a], cut[b]) for a, b in pairwise(cut)},
        "other noise": (noise[0], noise[1]),
        "flat": (flat, flat * 0.9),
        "flat and noise": (flat, flat + 0.1 * torch.randn_like(flat)),
        "sixteen pixels": (torch.rand(16, 16, 3), torch.rand(16, 16, 3)),
    }


@pytest.mark.parametrize("name", hopeless())
def test_what_can_t_be_told_is_left_alone(name):
    result = register(*hopeless()[name])
    assert result.doubt and not result.to_undo


def test_a_picture_as_it_was_is_left_alone():
    for source in photographs().values():
        picture = torch.from_numpy(source)
        result = register(picture, picture.clone())
        assert not result.doubt and not result.to_undo and result.movement < 0.01


def test_undone_is_opencv_s_warp_back():
    """Bicubic both, OpenCV's with other coefficients."""
    for seed, source in enumerate(islice(photographs().values(), 6)):
        one = edit(source, DRIFTS["turned"], seed=seed)
        height, width = source.shape[:2]
        theirs = cv2.warpAffine(
            one.edited.numpy(), one.matrix, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        ours, outside = undone(one.edited, register(one.source, one.edited).found)
        assert np.abs(ours.numpy() - theirs).mean() < 0.003
        there = cv2.warpAffine(np.ones_like(source[..., 0]), one.matrix, (width, height), flags=cv2.WARP_INVERSE_MAP)
        assert np.mean((outside.numpy() > 0) != (there < 0.5)) < 0.001


def test_nothing_is_changed_that_was_given():
    one = edit(photographs()["coffee"], DRIFTS["shift"])
    before = one.source.clone(), one.edited.clone()
    undone(one.edited, register(one.source, one.edited).found)
    assert torch.equal(one.source, before[0]) and torch.equal(one.edited, before[1])


def test_a_movement_is_the_root_mean_square_over_all_pixels():
    found = Similarity(1.02 * np.exp(0.01j), 3 - 2j)
    x, y = np.arange(301) - 150.0, np.arange(201) - 100.0
    points = x + 1j * y[:, None]
    moved = found.turn * points + found.shift - points
    assert Registration(found, (301, 201), 1, 0).movement == pytest.approx(
        np.sqrt((np.abs(moved) ** 2).mean()), rel=1e-2
    )
