"""Packing and positions: round trips, and equality with diffusers."""

import pytest
import torch

from flux_core import packing


@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 6), (8, 5), (9, 13)])
def test_unpack_undoes_pack(size):
    latent = torch.randn(2, 16, *size)
    tokens = packing.pack(latent)
    assert tokens.shape == (2, packing.token_count(*size), 64)
    assert torch.equal(packing.unpack(tokens, *size), latent)


def test_pack_equals_diffusers():
    from diffusers import FluxPipeline

    latent = torch.randn(2, 16, 8, 6)
    assert torch.equal(packing.pack(latent), FluxPipeline._pack_latents(latent, 2, 16, 8, 6))


def test_positions_equal_diffusers():
    from diffusers import FluxKontextPipeline

    theirs = FluxKontextPipeline._prepare_latent_image_ids(1, 4, 3, "cpu", torch.float32)
    assert torch.equal(packing.image_ids(4, 3), theirs)


def test_odd_sizes_repeat_their_own_edge():
    """Padded circularly, as a tile would be, the opposite edge would bleed in."""
    latent = torch.arange(16.0 * 3 * 5).view(1, 16, 3, 5)
    padded = packing.pad_to_patch(latent)
    assert torch.equal(padded[:, :, 3, :5], latent[:, :, 2])
    assert torch.equal(padded[:, :, :3, 5], latent[..., 4])


def test_one_reference_is_image_one_at_the_origin():
    (ids,) = packing.reference_ids([(4, 6)], (8, 8))
    assert torch.equal(ids, packing.image_ids(2, 3, index=1))


@pytest.mark.parametrize("placement", packing.PLACEMENTS)
def test_no_two_tokens_share_a_position(placement):
    sizes = [(4, 6), (6, 4), (8, 8)]
    ids = [packing.image_ids(4, 4), *packing.reference_ids(sizes, (8, 8), placement)]
    positions = torch.cat(ids).tolist()
    assert len({tuple(position) for position in positions}) == len(positions)


def test_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="offset, index, uxo"):
        packing.reference_ids([(4, 4)], (8, 8), "beside")


def test_a_reference_of_the_canvas_own_size_stands_on_the_canvas_itself():
    ids = packing.reference_ids([(12, 8)], (12, 8), "canvas")[0]
    assert torch.equal(ids, packing.image_ids(6, 4, index=1))


def test_a_smaller_reference_over_the_canvas_spans_it_evenly():
    """Half the size: each of its tokens stands in the middle of the four that it stands for."""
    options = packing.RopeOptions(scale_x=1.5, shift_x=3, scale_y=0.5, shift_y=-2)
    for chosen in (packing.RopeOptions(), options):
        (small,) = packing.reference_ids([(8, 12)], (16, 24), "canvas", chosen)
        whole = packing.image_ids(8, 12, index=1, options=chosen).unflatten(0, (4, 2, 6, 2)).mean((1, 3)).flatten(0, 1)
        torch.testing.assert_close(small, whole)
