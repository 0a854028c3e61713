"""Edits put back: outside the mask nothing changes, in size, type or a single bit, whatever mask, picture or editor."""

import pytest
import torch
from torch import Tensor

from flux_core.edit.blend import BLENDS
from flux_core.edit.finish import COLOURS, Finished, finished
from flux_core.edit.region import FITS, SIZINGS, Region, prepared
from flux_core.errors import Flux1Error
from painter.family import load_autoencoder
from painter.painter import WEIGHTS
from tests.flux_core.edit_cases import EDITORS, MASKS, Editor, disc, field, photographs

PHOTOGRAPHS = photographs()
SIZE = PHOTOGRAPHS["coffee"].shape[1:3]
SMALL = 0.0156
"""Megapixels: 128 x 128, to be quick."""


def edited(region: Region, editor: Editor, **settings) -> Finished:
    return finished(editor(region.image, region.shown_mask), region, **settings)


def check_outside(done: Finished, before: Tensor, mask: Tensor) -> None:
    """Size, type, and no difference outside the mask."""
    assert done.image.shape[1:] == before.shape[1:] and done.image.dtype == before.dtype
    outside = (mask == 0).expand(len(done.image), -1, -1)
    assert torch.equal(done.image[outside], before.expand(len(done.image), -1, -1, -1)[outside])
    assert (done.change[outside] == 0).all()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_outside_the_mask_nothing_changes(photograph: str) -> None:
    """Each photograph with every mask and another editor, sizing, fit, colour and blend each time."""
    picture = PHOTOGRAPHS[photograph]
    turn = list(PHOTOGRAPHS).index(photograph)
    for number, kind in enumerate(MASKS, turn):
        mask = MASKS[kind](*picture.shape[1:3])

        def pick(choices, step: int, number: int = number):
            return list(choices)[number // step % len(choices)]

        region = prepared(
            picture, mask, whole=number % 4 == 0, sizing=pick(("megapixels", "own size"), 1), fit=pick(FITS, 1),
            megapixels=SMALL,
        )  # fmt: skip
        done = edited(region, EDITORS[pick(EDITORS, 1)], colour=pick(COLOURS, 2), blend=pick(BLENDS, 1))
        check_outside(done, picture, mask)


@pytest.fixture(scope="module")
def autoencoder():
    return load_autoencoder(WEIGHTS / "vae" / "ae.safetensors")


def test_ten_edits_through_an_autoencoder_leave_all_outside_their_masks_as_it_was(autoencoder) -> None:
    """The same, painted and decoded each time, with the region handed on or only the picture."""
    picture = PHOTOGRAPHS["coffee"][:, :200, :256]
    for handed_on in (True, False):
        now, region, masked = picture, None, torch.zeros(1, 200, 256)
        for number in range(10):
            mask = disc(200, 256, 0.3 + 0.05 * number, 0.2 + 0.06 * number, 0.1)
            masked = torch.maximum(masked, mask)
            ready = prepared(now, mask, megapixels=SMALL, earlier=region if handed_on else None)
            with torch.inference_mode():
                pixels = EDITORS["object"](ready.image, ready.shown_mask).movedim(-1, 1) * 2 - 1
                decoded = autoencoder.decode(autoencoder.encode(pixels)).movedim(1, -1) / 2 + 0.5
            done = finished(decoded.clamp(0, 1), ready, blend=list(BLENDS)[number % 3])
            now, region = done.image, done.region
        outside = masked == 0
        assert torch.equal(now[outside], picture[outside])
        assert (now - picture).abs().amax(-1)[masked > 0].mean() > 0.05


def test_a_chain_goes_back_to_the_first_original_where_nothing_was_edited() -> None:
    """Though the picture was saved in 8 bits and worse in between; what was edited comes as it is."""
    picture = PHOTOGRAPHS["chelsea"]
    first, second = (disc(*PHOTOGRAPHS["chelsea"].shape[1:3], y, x, 0.1) for y, x in ((0.4, 0.3), (0.6, 0.7)))
    done = edited(prepared(picture, first, megapixels=SMALL), EDITORS["object"])
    worse = (done.image * 20).round() / 20
    done = edited(prepared(worse, second, megapixels=SMALL, earlier=done.region), EDITORS["object"])
    outside = (first == 0) & (second == 0)
    assert torch.equal(done.image[outside], picture[outside])
    inside = (first > 0) & (second == 0)
    assert torch.equal(done.image[inside], worse[inside])


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 301), (255, 31), (100, 99)])
@pytest.mark.parametrize("sizing", SIZINGS)
def test_any_size_from_16_pixels_comes_back_in_its_size(size: tuple[int, int], sizing: str) -> None:
    picture = torch.rand(1, *size, 3)
    mask = torch.zeros(1, *size)
    mask[:, 3:12, 5:14] = 1
    for fit in FITS:
        region = prepared(picture, mask, sizing=sizing, megapixels=SMALL, fit=fit)
        assert region.image.shape[1] % 16 == region.image.shape[2] % 16 == 0
        assert region.image.shape[:3] == region.shown_mask.shape
        check_outside(edited(region, EDITORS["gain"]), picture, mask)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("sizing", SIZINGS)
def test_what_was_prepared_is_where_it_was_when_put_back(sizing: str, fit: str) -> None:
    """No side of the picture slides, and scaling to the model's size and back loses about one level of 255."""
    picture = PHOTOGRAPHS["coffee"][:, :201, :251]
    back = edited(prepared(picture, sizing=sizing, megapixels=0.1, fit=fit), EDITORS["identity"], colour="off", width=0)
    assert (back.image - picture).abs().mean() < 1.5 / 255
    assert back.drift.shift.abs().max() < 0.05 and (back.drift.scale - 1).abs().max() < 1e-3


def test_at_its_own_size_nothing_is_resampled() -> None:
    picture = PHOTOGRAPHS["rocket"]
    region = prepared(picture, disc(*picture.shape[1:3]), sizing="own size")
    done = edited(region, EDITORS["identity"], colour="off", width=0)
    assert torch.equal(done.image, picture) and not done.change.any()


@pytest.mark.parametrize("factor", [0.5, 0.77, 2])
def test_an_edit_that_comes_back_in_another_size_is_in_its_place(factor: float) -> None:
    picture = PHOTOGRAPHS["coffee"]
    mask = disc(*picture.shape[1:3])
    region = prepared(picture, mask, megapixels=0.25)
    height, width = (round(side * factor) for side in region.image.shape[1:3])
    other = torch.nn.functional.interpolate(
        region.image.movedim(-1, 1), (height, width), mode="bicubic", antialias=True
    )
    done = finished(other.movedim(1, -1).clamp(0, 1), region)
    check_outside(done, picture, mask)
    assert done.drift.shift.abs().max() < 0.3 and (done.drift.scale - 1).abs().max() < 2e-3


def test_half_precision_and_alpha_stay_as_they_came() -> None:
    picture = torch.rand(1, 60, 70, 4)
    mask = disc(60, 70)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        done = edited(prepared(picture.to(dtype), mask, megapixels=SMALL), EDITORS["gain"])
        check_outside(done, picture.to(dtype), mask)
        assert torch.equal(done.image[..., 3], picture.to(dtype)[..., 3])
        assert done.change.any()


def test_one_mask_serves_a_batch_and_each_picture_may_have_its_own() -> None:
    pictures = torch.cat([PHOTOGRAPHS[name][:, :180, :200] for name in ("coffee", "chelsea", "china")])
    one, own = disc(180, 200), torch.cat([disc(180, 200, x=x) for x in (0.2, 0.5, 0.8)])
    for image, mask in ((pictures, one), (pictures, own), (pictures[:1], own)):
        done = edited(prepared(image, mask, megapixels=SMALL), EDITORS["object"])
        assert len(done.image) == 3 and done.report.count("\n") == 2
        check_outside(done, image, mask)
        assert (done.change.flatten(1).mean(1) > 0).all()


def test_several_results_for_one_region_each_become_a_picture() -> None:
    region = prepared(PHOTOGRAPHS["coffee"], disc(*SIZE), megapixels=SMALL)
    edits = torch.cat([EDITORS[name](region.image, region.shown_mask) for name in ("gain", "object")])
    done = finished(edits, region)
    alone = finished(edits[1:], region)
    assert len(done.image) == 2 and torch.allclose(done.image[1:], alone.image, atol=1e-5)


def test_without_a_mask_a_change_mask_says_what_stays() -> None:
    """Of the picture's size or of the one that the model worked at."""
    picture = PHOTOGRAPHS["astronaut"]
    region = prepared(picture, sizing="kontext")
    own, shown = disc(*picture.shape[1:3]), disc(*region.image.shape[1:3])
    edit = EDITORS["field"](EDITORS["object"](region.image, shown), shown)
    check_outside(finished(edit, region, own), picture, own)
    done = finished(edit, region, shown)
    kept = region.restored(shown[..., None])[..., 0] == 0
    assert 0.5 < kept.float().mean() < 0.95 and torch.equal(done.image[kept], picture[kept])


def test_a_change_mask_that_is_empty_changes_nothing() -> None:
    picture = PHOTOGRAPHS["coins"]
    region = prepared(picture, megapixels=SMALL)
    done = finished(EDITORS["noise"](region.image, region.shown_mask), region, torch.zeros(picture.shape[:3]))
    assert torch.equal(done.image, picture) and "0.00% of pixels" in done.report


def test_only_the_enclosed_is_filled_and_growth_reaches_into_the_region() -> None:
    mask = MASKS["with a hole"](300, 400)
    plain, filled, grown = (
        prepared(torch.rand(1, 300, 400, 3), mask, sizing="own size", **settings)
        for settings in ({}, {"fill_holes": True}, {"grow": 9, "blur": 5})
    )
    y, x = 150 - plain.box.top, 180 - plain.box.left
    assert plain.mask[0, y, x] == 0 and filled.mask[0, y, x] == 1
    assert torch.equal(plain.mask[filled.mask == 0], torch.zeros(int((filled.mask == 0).sum())))
    assert grown.box.width == plain.box.width + 28 + 28  # 9 + 5 at each side, and half of that as context
    assert (grown.mask > 0).sum() > (plain.mask > 0).sum()


def test_kontext_s_shape_is_met_with_more_of_the_picture() -> None:
    """Not with padding or distortion, where the picture has room."""
    region = prepared(torch.rand(1, 900, 1200, 3), disc(900, 1200, radius=0.1), sizing="kontext")
    assert region.inner == region.size or min(a / b for a, b in zip(region.inner, region.size, strict=True)) > 0.99
    assert region.box.width / region.box.height == pytest.approx(region.size[0] / region.size[1], rel=0.01)


@pytest.mark.parametrize("left", [0, 190, 380])
def test_a_crop_holds_all_of_the_mask(left: int) -> None:
    """Of 400 pixels Kontext's widest shape leaves 233."""
    mask = torch.zeros(1, 100, 400)
    mask[:, 30:60, left : left + 20] = 1
    region = prepared(torch.rand(1, 100, 400, 3), mask, whole=True, sizing="kontext", fit="crop")
    assert region.box.size == (233, 100)
    assert region.mask.sum() == mask.sum()


def test_inputs_are_never_changed() -> None:
    picture, mask = PHOTOGRAPHS["coffee"].clone(), disc(*SIZE)
    region = prepared(picture, mask, megapixels=SMALL)
    edit = EDITORS["field"](region.image, region.shown_mask)
    before = edit.clone(), region.mask.clone()
    next_region = finished(edit, region).region
    touched = next_region.touched.clone()
    finished(edit, prepared(next_region.original, mask.flip(-1), megapixels=SMALL, earlier=next_region))
    assert torch.equal(picture, PHOTOGRAPHS["coffee"]) and torch.equal(mask, disc(*SIZE))
    assert torch.equal(edit, before[0]) and torch.equal(region.mask, before[1])
    assert torch.equal(next_region.touched, touched)


def failing(make) -> str:
    with pytest.raises(Flux1Error) as refusal:
        make()
    return str(refusal.value)


PICTURE = torch.rand(1, 60, 90, 3)
REGION = prepared(PICTURE, disc(60, 90), megapixels=SMALL)
REFUSALS = {
    "mask of another size": (lambda: prepared(PICTURE, torch.ones(1, 30, 40)), ["90 x 60", "40 x 30"]),
    "empty mask": (lambda: prepared(PICTURE, torch.zeros(1, 60, 90)), ["empty", "0 pixels"]),
    "LoadImage's mask where there is none": (lambda: prepared(PICTURE, torch.zeros(1, 64, 64)), ["empty", "0 pixels"]),
    "mask narrowed away": (lambda: prepared(PICTURE, disc(60, 90), grow=-40), ["empty", "grow -40"]),
    "mask wider than the crop": (
        lambda: prepared(torch.rand(1, 64, 640, 3), torch.ones(1, 64, 640), sizing="kontext", fit="crop"),
        ["640 x 64", "pad or stretch"],
    ),
    "tiny picture": (lambda: prepared(torch.rand(1, 8, 200, 3)), ["16", "200 x 8"]),
    "change mask of another size": (lambda: finished(REGION.image, REGION, torch.ones(1, 50, 50)), ["90 x 60", "50 x 50"]),
    "batches": (
        lambda: finished(REGION.image.expand(2, -1, -1, -1), prepared(PICTURE.expand(3, -1, -1, -1))), ["2, 3"],
    ),
    "chain of another picture": (
        lambda: prepared(torch.rand(1, 50, 50, 3), disc(50, 50), earlier=finished(REGION.image, REGION).region),
        ["90 x 60", "50 x 50"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_what_was_expected_and_found(case: str) -> None:
    make, words = REFUSALS[case]
    text = failing(make)
    assert all(word in text for word in [*words, "Expected:", "Found:", "Fix:"]), text


def test_the_field_is_as_strong_as_it_says() -> None:
    """Else the tests of colour would hold for no change at all."""
    assert field(200, 300, 1).abs().max() > 0.095
