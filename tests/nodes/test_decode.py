"""Pictures to latents and back in tiles: nearly the same as whole, and no tile grows with the picture."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vae(pack, models: Path):
    """The trained tiny autoencoder: a random one's pictures have nothing in common with what it was given."""
    from flux1.nodes.loaders import Flux1LoadVAE

    from painter.painter import WEIGHTS

    shutil.copy(WEIGHTS / "vae" / "ae.safetensors", models / "vae" / "trained.safetensors")
    return Flux1LoadVAE.execute("trained.safetensors")[0]


def landscape(width: int, height: int) -> torch.Tensor:
    from painter.scenes import Scene, draw

    picture = torch.from_numpy(draw(Scene(body="left", lake=True, seed=3)).image)[None].movedim(-1, 1)
    return interpolate(picture, (height, width), mode="bicubic").clamp(0, 1).movedim(1, -1)


def encoded(vae, image: torch.Tensor, tiled: str) -> dict:
    from flux1.nodes.decode import Flux1EncodeImage

    return Flux1EncodeImage.execute(image, vae, tiled)[0]


def decoded(vae, latent: dict, tiled: str) -> torch.Tensor:
    from flux1.nodes.decode import Flux1DecodeImage

    return Flux1DecodeImage.execute(latent, vae, tiled)[0]


def psnr(ours: torch.Tensor, theirs: torch.Tensor, peak: float) -> float:
    return (20 * torch.log10(peak / (ours - theirs).square().mean().sqrt())).item()


def test_in_tiles_it_is_nearly_what_it_is_whole(vae):
    image = landscape(1100, 304)
    whole, tiled = encoded(vae, image, "never"), encoded(vae, image, "always")
    assert tiled.keys() == whole.keys() and not torch.equal(tiled["samples"], whole["samples"])
    span = (whole["samples"].max() - whole["samples"].min()).item()
    assert psnr(tiled["samples"], whole["samples"], span) > 36
    one, other = decoded(vae, whole, "always"), decoded(vae, whole, "never")
    assert one.shape == other.shape == image.shape and not torch.equal(one, other)
    assert psnr(one, other, 1.0) > 26  # each tile is normalised by its own colours, here those of sky or meadow alone


def test_no_tile_grows_with_the_picture(vae):
    """What any layer is given is at most what the largest tile gives it: 32 channels a pixel, here."""
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1] * given[0].shape[-2]))
        for layer in vae.first_stage_model.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    try:
        image = landscape(5000, 48)
        for tiled, longest in (("always", 2048), ("never", 5008)):
            seen.clear()
            latent = encoded(vae, image, tiled)
            decoded(vae, latent, tiled)
            assert (
                longest * 48 <= max(seen) <= (longest + 2) * 50
            )  # a convolution that halves gets a column and row more
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("tiled", "size", "expected"), [
    ("auto", (2048, 2048), False), ("auto", (2048, 2064), True), ("auto", (16, 16), False),
    ("never", (8192, 8192), False), ("always", (16, 16), True),
])  # fmt: skip
def test_auto_takes_tiles_above_the_largest_preset(pack, tiled, size, expected):
    from flux1.nodes.decode import in_tiles

    assert in_tiles(tiled, *size) is expected


@pytest.mark.parametrize("tiled", ["auto", "always"])
def test_small_pictures_come_back_in_their_size(vae, tiled):
    image = landscape(71, 57)
    assert decoded(vae, encoded(vae, image, tiled), tiled).shape == image.shape
