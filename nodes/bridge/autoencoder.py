"""Encoding and decoding by a VAE that is checked to be FLUX.1's, with pictures and latents checked to be finite."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...flux_core import sanity
from ...flux_core.errors import Flux1Error

Tiles = tuple[int, int]
"""Side and overlap of the squares that a picture is taken apart into: pixels of a picture, cells of a latent."""


def encode(vae: Any, image: Tensor, tiles: Tiles | None = None) -> Tensor:
    """Latent `(b, 16, h, w)` of pictures `(b, 8h, 8w, 3)` in [0, 1]. Raises Flux1Error for a VAE of another model."""
    check_vae(vae)
    if tiles is None:
        return vae.encode(image)
    return vae.encode_tiled(image, tile_x=tiles[0], tile_y=tiles[0], overlap=tiles[1])


def decode(vae: Any, latent: Tensor, tiles: Tiles | None = None) -> Tensor:
    """The pictures in a latent. Raises Flux1Error for a VAE or a latent of another model, and for NaN."""
    check_vae(vae)
    sanity.check_latent(latent)
    if tiles is None:
        image = vae.decode(latent)
    else:
        image = vae.decode_tiled(latent, tile_x=tiles[0], tile_y=tiles[0], overlap=tiles[1])
    sanity.check_finite(
        image,
        "The VAE's picture has NaN or infinite values (non-finite)",
        "start ComfyUI without --fp16-vae; if it stays, get ae.safetensors again",
    )
    return image


def check_vae(vae: Any) -> None:
    if (vae.latent_channels, vae.latent_dim) != (sanity.LATENT_CHANNELS, 2):
        raise Flux1Error(
            "The VAE is not FLUX.1's",
            expected=f"a VAE for pictures with {sanity.LATENT_CHANNELS} latent channels",
            found=f"{vae.latent_channels} channels in {vae.latent_dim} dimensions",
            fix="load FLUX.1's ae.safetensors with Flux1LoadVAE",
        )
