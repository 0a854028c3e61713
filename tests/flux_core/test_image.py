"""Pictures and masks before encoding."""

import resource

import numpy as np
import pytest
import torch
from scipy import ndimage

from flux_core import image as pictures
from flux_core.errors import Flux1Error

PICTURE = torch.rand(1, 57, 71, 3)


def square(height=57, width=71, size=9) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, 20 : 20 + size, 30 : 30 + size] = 1
    return mask


@pytest.mark.parametrize("pixels", [1, 5, 12])
def test_grown_mask_is_a_disc_wider(pixels):
    grown = pictures.grown(square(), pixels) > 0.5
    distance = torch.cdist(square().nonzero()[:, 1:].float(), torch.ones(57, 71).nonzero().float()).amin(0).view(57, 71)
    assert torch.equal(grown[0], distance <= pixels)


@pytest.mark.parametrize("pixels", [1, 4, 9, -1, -5])
def test_a_soft_mask_grows_and_shrinks_as_scipy_s_grey_morphology_does(pixels):
    torch.manual_seed(0)
    soft = torch.rand(2, 23, 37)
    radius = abs(pixels)
    across = np.arange(-radius, radius + 1)
    disc = (across[:, None] ** 2 + across**2 <= radius**2)[None]
    change, outside = (ndimage.grey_dilation, 0) if pixels > 0 else (ndimage.grey_erosion, 1)
    theirs = change(soft.numpy(), footprint=disc, mode="constant", cval=outside)
    assert torch.allclose(pictures.grown(soft, pixels), torch.from_numpy(theirs), atol=1e-6)


def test_growing_takes_no_more_memory_than_some_pictures():
    """A convolution with the disc as kernel would take 2 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert pictures.grown(square(128, 128), 100).mean() > 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize("check", [pictures.rgb, lambda image: pictures.image_and_mask(image, image[..., 0])])
def test_a_picture_too_large_is_refused_before_memory_is_spent(check):
    """One number seen as a picture of 0.8 GB."""
    with pytest.raises(Flux1Error, match="67,108,864 pixels.*16384 x 4104"):
        check(torch.zeros(1, 1, 1, 1).expand(1, 4104, 16384, 3))


def test_narrowed_mask_lies_inside():
    narrowed = pictures.grown(square(), -3)
    assert narrowed.sum() == 9
    assert narrowed[0, 23:26, 33:36].all()


@pytest.mark.parametrize("pixels", [2, 8, 40])
def test_feather_is_a_ramp_that_leaves_the_far_side_alone(pixels):
    mask = torch.zeros(1, 64, 100)
    mask[..., 50:] = 1
    soft = pictures.feathered(mask, pixels)
    assert (soft.diff(dim=-1) >= -1e-6).all()
    assert soft[0, 0, 49] < 0.5 < soft[0, 0, 50]
    assert torch.allclose(soft[..., : 50 - pixels], torch.zeros(1), atol=1e-4)


@pytest.mark.parametrize("size", [(71, 57), (64, 48), (17, 33), (16, 16)])
def test_padding_reaches_whole_tokens_and_repeats_the_edge(size):
    width, height = size
    image = torch.rand(1, height, width, 3)
    padded = pictures.pad_to_tokens(image)
    assert padded.shape[1] % 16 == 0 and padded.shape[2] % 16 == 0
    assert torch.equal(padded[:, :height, :width], image)
    assert torch.equal(padded[:, -1, -1], image[:, -1, -1])


@pytest.mark.parametrize("sizing", pictures.SIZINGS)
def test_sizings_give_whole_tokens_and_name_the_true_size(sizing):
    sized = pictures.SIZINGS[sizing](PICTURE)
    width, height = pictures.size_of(sized.image)
    assert width % 16 == 0 and height % 16 == 0
    assert sized.size[0] <= width and sized.size[1] <= height
    if sizing == "pad":
        assert sized.size[0] / sized.size[1] == pytest.approx(71 / 57, rel=2e-3)
    if sizing != "own size":
        assert (width, height) == (1104, 944) or (width, height) == (1184, 880)


def test_crop_keeps_the_middle():
    wide = torch.zeros(1, 100, 1000, 3)
    wide[:, :, 450:550] = 1
    cropped = pictures.crop(wide).image
    assert cropped[0, 300, cropped.shape[2] // 2].min() > 0.99
    assert cropped[0, 300, 0].max() < 0.01


def test_alpha_is_dropped_and_grey_repeated():
    assert torch.equal(pictures.rgb(torch.cat([PICTURE, PICTURE[..., :1]], dim=-1)), PICTURE)
    assert pictures.rgb(PICTURE[..., :1]).shape[-1] == 3


def test_inputs_are_never_changed():
    image, mask = PICTURE.clone(), square()
    pictures.image_and_mask(image, mask)
    for change in (pictures.grown, pictures.feathered):
        change(mask, 3)
    for change in (pictures.pad_to_tokens, *pictures.SIZINGS.values()):
        change(image)
    assert torch.equal(image, PICTURE) and torch.equal(mask, square())


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (PICTURE, square(48, 32), ["71 x 57", "32 x 48"]),
        (PICTURE, torch.zeros(1, 57, 71), ["empty", "0 pixels"]),
        (torch.rand(1, 8, 200, 3), torch.ones(1, 8, 200), ["16", "200 x 8"]),
        (PICTURE.repeat(3, 1, 1, 1), square().repeat(2, 1, 1), ["batch", "3", "2"]),
    ],
)
def test_refusals_name_what_was_expected_and_found(image, mask, words):
    with pytest.raises(Flux1Error) as refusal:
        pictures.image_and_mask(image, mask)
    text = str(refusal.value)
    assert all(word in text for word in [*words, "Expected:", "Found:", "Fix:"]), text


def test_batches_of_one_meet_batches_of_many():
    image, mask = pictures.image_and_mask(PICTURE, square().repeat(2, 1, 1))
    assert len(image) == len(mask) == 2
