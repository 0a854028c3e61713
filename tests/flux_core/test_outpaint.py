"""Room around a picture: what is added, what stays, and how the mask fades into the picture."""

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from flux_core.errors import Flux1Error
from flux_core.outpaint import MOST, padded_for_outpaint

PICTURE = torch.rand(2, 57, 71, 3)
ROOMS = [(0, 0, 40, 0), (13, 0, 0, 0), (0, 5, 0, 9), (10, 20, 30, 40)]


@pytest.mark.parametrize("feather", [0, 1, 12, 200])
@pytest.mark.parametrize("room", ROOMS)
def test_the_mask_falls_evenly_with_the_distance_from_the_room(room: tuple[int, ...], feather: int) -> None:
    """SciPy measures the distance."""
    left, top, right, bottom = room
    inside = torch.zeros(57 + top + bottom, 71 + left + right)
    inside[top : top + 57, left : left + 71] = 1
    _, mask = padded_for_outpaint(PICTURE, *room, feather)
    fall = torch.from_numpy(distance_transform_edt(inside.numpy())) / (feather + 1)
    assert torch.allclose(mask, (1 - fall).clamp(0, 1).float()[None], atol=1e-6)


@pytest.mark.parametrize("room", ROOMS)
def test_the_picture_stays_and_the_rest_is_mid_grey(room: tuple[int, ...]) -> None:
    left, top, right, bottom = room
    before = PICTURE.clone()
    larger, mask = padded_for_outpaint(PICTURE, *room, 8)
    assert torch.equal(larger[:, top : top + 57, left : left + 71], PICTURE) and torch.equal(PICTURE, before)
    assert larger.shape == (2, 57 + top + bottom, 71 + left + right, 3) and mask.shape[1:] == larger.shape[1:3]
    added = mask.expand(2, -1, -1) == 1
    assert added.sum() == 2 * (mask.numel() - 57 * 71) and (larger[added] == 0.5).all()


@pytest.mark.parametrize(
    ("room", "words"),
    [
        ((0, 0, 0, 0), ["0 pixels", "left 0, top 0, right 0, bottom 0"]),
        ((8, 0, -8, 0), ["right -8", str(MOST)]),
        ((0, 0, 0, MOST + 1), [f"bottom {MOST + 1}"]),
    ],
)
def test_room_that_is_none_is_refused_in_words(room: tuple[int, ...], words: list[str]) -> None:
    with pytest.raises(Flux1Error) as refusal:
        padded_for_outpaint(PICTURE, *room)
    assert all(word in str(refusal.value) for word in [*words, "Expected:", "Found:", "Fix:"])
