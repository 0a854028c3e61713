"""What Fill and Kontext see, against diffusers and ComfyUI."""

import pytest
import torch

from flux_core import conditioning, packing


def test_fill_channels_equal_diffusers():
    from diffusers import FluxFillPipeline

    masked, mask = torch.randn(1, 16, 8, 6), torch.rand(1, 1, 64, 48)
    blocks = mask[:, 0].view(1, 8, 8, 6, 8).permute(0, 2, 4, 1, 3).reshape(1, 64, 8, 6)  # as its prepare_mask_latents
    theirs = torch.cat(
        [FluxFillPipeline._pack_latents(masked, 1, 16, 8, 6), FluxFillPipeline._pack_latents(blocks, 1, 64, 8, 6)], -1
    )
    ours = packing.pack(conditioning.fill_cells(masked, mask))
    assert ours.shape == (1, 12, 320)
    assert torch.equal(ours, theirs)


def test_masked_picture_is_mid_grey_in_the_hole_and_untouched_outside():
    image, mask = torch.rand(1, 16, 16, 3), torch.zeros(1, 16, 16)
    mask[:, 4:8] = 1
    masked = conditioning.masked_pixels(image, mask)
    assert (masked[:, 4:8] == 0.5).all()
    assert torch.allclose(masked[:, 8:], image[:, 8:])


def test_kontext_sizes_are_those_of_diffusers():
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    assert sorted(conditioning.KONTEXT_SIZES) == sorted(PREFERRED_KONTEXT_RESOLUTIONS)


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (500, 500), (4000, 1000), (71, 57), (3000, 2000)])
def test_nearest_size_is_the_one_diffusers_takes(size):
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    width, height = size
    _, *theirs = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    assert conditioning.nearest_kontext_size(width, height) == tuple(theirs)
