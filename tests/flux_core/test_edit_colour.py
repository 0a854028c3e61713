"""An edit's colours and edge: what the correction takes out of the seam, what the blends are held against, the report."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix, identity, kron
from scipy.sparse.linalg import spsolve
from torch import Tensor

from flux_core.edit.blend import BLENDS, banded, distance, membrane, ramp
from flux_core.edit.finish import finished, laid_in
from flux_core.edit.region import prepared
from tests.flux_core.edit_cases import MASKS, disc, field, moved, photographs

PHOTOGRAPHS = photographs()
del PHOTOGRAPHS["hubble"]  # black sky has no colour to compare, and 12 pixels are far between stars
FIELDS = {"gain": lambda image, wave: image * (1 + wave), "offset": lambda image, wave: image + wave}


def laid(picture: Tensor, edited: Tensor, mask: Tensor, colour: str, blend: str = "feather", width: int = 0) -> Tensor:
    """The edit laid into the picture, both `(1, height, width, 3)`."""
    pictures = picture.movedim(-1, 1), edited.movedim(-1, 1)
    return laid_in(*pictures, mask[:, None], colour, blend, width).movedim(1, -1)


def step_at_edge(picture: Tensor, edited: Tensor, mask: Tensor, colour: str) -> float:
    """Mean difference from the picture just inside the mask's edge: the step there, as just outside there is none."""
    inside = distance(mask[:, None] > 0, 2)[:, 0] == 1
    return (laid(picture, edited, mask, colour) - picture).abs().mean(-1)[inside].mean().item()


def in_whole_tokens(picture: Tensor) -> Tensor:
    return picture[:, : picture.shape[1] // 16 * 16, : picture.shape[2] // 16 * 16]


@pytest.mark.parametrize("kind", FIELDS)
def test_local_correction_leaves_a_tenth_of_the_seam_of_a_smooth_field(kind: str) -> None:
    """And less than 40 % of what one gain and offset for all of it leave; on every photograph, with another field."""
    for number, (name, picture) in enumerate(PHOTOGRAPHS.items()):
        picture = in_whole_tokens(picture) * 0.7 + 0.15  # so that no colour is clipped: what is lost can't be put right
        edited = FIELDS[kind](picture, field(*picture.shape[1:3], number))
        mask = disc(*picture.shape[1:3])
        plain, one, local = (step_at_edge(picture, edited, mask, colour) for colour in ("off", "global", "local"))
        assert local < 0.1 * plain and local < 0.4 * one, (name, plain, one, local)


@pytest.mark.parametrize("mask", MASKS)
def test_local_correction_helps_with_every_mask(mask: str) -> None:
    picture = in_whole_tokens(PHOTOGRAPHS["coffee"])
    edited = (picture * (1 + field(*picture.shape[1:3], 2))).clamp(0, 1)
    white = MASKS[mask](*picture.shape[1:3])
    assert step_at_edge(picture, edited, white, "local") < 0.15 * step_at_edge(picture, edited, white, "off")


def test_a_frame_around_the_mask_has_no_say() -> None:
    """Drawn to point at the mask, it is neither in the picture nor in the mask."""
    picture = torch.full((1, 160, 160, 3), 0.5)
    mask, edited = torch.zeros(1, 160, 160), picture.clone()
    mask[:, 40:110, 60:160] = 1
    edited[:, 36:114, 56:] = torch.tensor([1.0, 0.0, 0.0])
    edited[:, 40:110, 60:] = 0.5
    assert (laid(picture, edited, mask, "local") - picture).abs().max() < 0.005


def test_what_is_not_known_is_changed_no_more_than_what_is() -> None:
    """The colours drift ever faster towards the corner that the mask covers."""
    picture = in_whole_tokens(PHOTOGRAPHS["coffee"]) * 0.8 + 0.1
    height, width = picture.shape[1:3]
    towards = torch.linspace(0, 1, height)[:, None] * torch.linspace(0, 1, width)
    edited, mask = picture - 0.1 * towards[None, ..., None], torch.zeros(1, height, width)
    mask[:, height // 3 :, width // 3 :] = 1
    change = (laid(picture, edited, mask, "local") - edited).abs()
    assert change.max() < 1.1 * (picture - edited)[mask == 0].max()


def test_one_gain_is_undone_by_global_correction() -> None:
    picture = in_whole_tokens(PHOTOGRAPHS["coffee"]) * 0.9
    edited, mask = picture * torch.tensor([1.1, 0.9, 0.95]), disc(*picture.shape[1:3])
    assert step_at_edge(picture, edited, mask, "global") < 0.03 * step_at_edge(picture, edited, mask, "off")


@pytest.mark.parametrize("change", ["shift", "noise", "object"])
def test_where_colours_are_right_the_correction_leaves_them(change: str) -> None:
    """Neither a shift, nor noise, nor something painted beyond the mask passes for a loss of contrast or colour."""
    for name, picture in PHOTOGRAPHS.items():
        picture = in_whole_tokens(picture)
        mask = disc(*picture.shape[1:3])
        edited = moved(picture, 12, -7) if change == "shift" else picture.clone()
        if change == "noise":
            edited += 0.05 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
        if change == "object":
            edited[:, 40:80, 60:100] = torch.tensor([0.9, 0.1, 0.1])
        plain, corrected = (laid(picture, edited, mask, colour) for colour in ("off", "local"))
        assert (plain - corrected).abs().mean(-1)[mask > 0].mean() < 0.025, name


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("most", [1, 5, 40])
def test_distances_are_scipy_s(mask: str, most: int) -> None:
    white = MASKS[mask](90, 130)
    theirs = distance_transform_edt(np.pad(white[0].numpy() > 0, 200, mode="edge"))[200:-200, 200:-200].clip(max=most)
    inside = white[0].numpy() > 0
    if mask != "at the border":  # there SciPy sees beyond the border what np.pad repeats
        assert np.allclose(distance(white[:, None] > 0, most)[0, 0].numpy()[inside], theirs[inside], atol=1e-4)
    assert (distance(white[:, None] > 0, most)[0, 0].numpy()[~inside] == 0).all()


@pytest.mark.parametrize("width", [4, 16, 64])
def test_weights_reach_1_inside_even_where_the_mask_is_narrow(width: int) -> None:
    white = MASKS["islands"](240, 320)
    weight = ramp(white[:, None], width)[0, 0]
    assert weight[120, 200] == 1 and weight[240 - 30, 40] == 1  # stroke and pixel
    assert weight[72, 96] == 1  # the middle of the large one
    assert ((weight > 0) == (white[0] > 0)).all()


def test_bands_that_are_not_weighed_sum_to_the_picture() -> None:
    picture = torch.rand(1, 3, 64, 96)
    assert torch.allclose(banded(picture, torch.ones(1, 1, 64, 96), 3), picture, atol=1e-5)


def test_the_membrane_is_what_a_sparse_solver_gives() -> None:
    """SciPy solves Laplace's equation exactly on the same grid."""
    height, width = 61, 83
    known = torch.ones(1, 1, height, width)
    known[..., 8:50, 15:70] = 0
    known[..., 20:61, 30:50] = 0  # to the border
    noise = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(0))
    values = field(height, width, 4).movedim(-1, 0)[None, :1] * 5 + 0.05 * noise
    rows, columns = (csr_matrix(np.diff(np.eye(side), axis=0)) for side in (height, width))
    laplace = kron(rows.T @ rows, identity(width)) + kron(identity(height), columns.T @ columns)
    free = np.flatnonzero(known.numpy().ravel() == 0)
    exact = values.numpy().ravel().astype(float)
    exact[free] = 0
    exact[free] = spsolve(laplace.tocsr()[free][:, free], -(laplace @ exact)[free])
    found = membrane(values, known).numpy().ravel()
    assert np.abs(found - exact).max() < 0.1 * np.ptp(exact) and np.abs(found - exact).mean() < 0.01 * np.ptp(exact)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("mask", MASKS)
def test_no_blend_reaches_beyond_the_mask(mask: str, blend: str) -> None:
    picture, white = PHOTOGRAPHS["chelsea"], MASKS[mask](*PHOTOGRAPHS["chelsea"].shape[1:3])
    done = laid(picture, 1 - picture, white, "off", blend, 32)
    assert torch.equal(done[white == 0], picture[white == 0])
    assert not torch.equal(done, picture)


@pytest.mark.parametrize("blend", BLENDS)
def test_every_blend_hides_an_edge_and_keeps_the_middle(blend: str) -> None:
    picture = torch.full((1, 160, 160, 3), 0.5)
    edited, mask = picture + 0.2, disc(160, 160, 0.5, 0.5, 0.4)
    done = laid(picture, edited, mask, "off", blend, 32)
    assert max(done.diff(dim=1).abs().amax(), done.diff(dim=2).abs().amax()) < 0.04
    expected = 0.5 if blend == "gradient" else 0.7  # no gradients in the edit: only the colours at the edge count
    assert (done[0, 80, 80] - expected).abs().max() < 0.02


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize(("right", "down", "scale"), [(12, -7, 1), (-3.5, 9, 1), (0, 0, 0.96), (0, 0, 1.04)])
def test_the_report_says_how_far_an_edit_slid_and_grew(
    photograph: str, right: float, down: float, scale: float
) -> None:
    """Whatever is painted inside the mask, and with other colours."""
    picture = in_whole_tokens(PHOTOGRAPHS[photograph]) * 0.9
    mask = disc(*picture.shape[1:3], 0.5, 0.5, 0.2)
    edited = moved(picture, right, down, scale) * torch.tensor([1.05, 1.0, 0.95])
    edited[mask > 0.5] = torch.tensor([0.9, 0.1, 0.2])
    drift = finished(edited, prepared(picture, mask, whole=True, sizing="own size")).drift
    middle = 4 * abs(scale - 1) * 10  # the window's middle is not the picture's
    assert (drift.shift[0] - torch.tensor([right, down])).abs().max() < 0.6 + middle
    assert abs(drift.scale.item() - scale) < 6e-3
