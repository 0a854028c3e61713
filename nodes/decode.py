"""Pictures to latents and back, at their true size."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import image as pictures
from ..flux_core.conditioning import LATENT_SCALE
from . import bridge

AUTO, NEVER, ALWAYS = "auto", "never", "always"
LARGE = 2048 * 2048
"""Pixels above which auto works in tiles; up to here a graphics card of 24 GB has room for the whole picture."""
TILE, OVERLAP = 1024, 128
"""In pixels. ComfyUI's VAE averages three passes: of square tiles, and of tiles twice as wide or twice as high."""

TILED = io.Combo.Input(
    "tiled",
    options=[AUTO, NEVER, ALWAYS],
    default=AUTO,
    optional=True,
    advanced=True,
    tooltip="In tiles the memory does not grow with the picture, but it takes three times as long, and colours may differ "
    "by a trace. auto: above 2048 x 2048 pixels.",
)


def in_tiles(tiled: str, width: int, height: int) -> bool:
    """Whether a picture of this size goes through the autoencoder in tiles."""
    return tiled == ALWAYS or (tiled == AUTO and width * height > LARGE)


class Flux1EncodeImage(io.ComfyNode):
    """Encodes a picture of any size from 16 pixels: padded to whole tokens by repeating its edge, its true size kept in
    the latent for FLUX.1 Decode Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1EncodeImage",
            display_name="FLUX.1 Encode Image",
            category="FLUX.1/latent",
            description=getdoc(cls),
            search_aliases=["flux", "vae encode", "image to latent"],
            inputs=[
                io.Image.Input("image", tooltip="The picture."),
                io.Vae.Input("vae", tooltip="FLUX.1's autoencoder."),
                TILED,
            ],
            outputs=[io.Latent.Output(tooltip="The encoded picture.")],
        )

    @classmethod
    def execute(cls, image: Any, vae: Any, tiled: str = AUTO) -> io.NodeOutput:
        image = pictures.rgb(image)
        padded = pictures.pad_to_tokens(image)
        size = bridge.true_size(pictures.size_of(image), padded)
        tiles = (TILE, OVERLAP) if in_tiles(tiled, *pictures.size_of(padded)) else None
        return io.NodeOutput({"samples": bridge.encode(vae, padded, tiles), **size})


class Flux1DecodeImage(io.ComfyNode):
    """Decodes a latent and cuts off what was padded, so that the picture has the size it came with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1DecodeImage",
            display_name="FLUX.1 Decode Image",
            category="FLUX.1/latent",
            description=getdoc(cls),
            search_aliases=["flux", "vae decode", "latent to image"],
            inputs=[
                io.Latent.Input("latent", tooltip="From a sampler."),
                io.Vae.Input("vae", tooltip="FLUX.1's autoencoder."),
                TILED,
            ],
            outputs=[io.Image.Output(tooltip="The picture.")],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any], vae: Any, tiled: str = AUTO) -> io.NodeOutput:
        height, width = (cells * LATENT_SCALE for cells in latent["samples"].shape[-2:])
        tiles = (TILE // LATENT_SCALE, OVERLAP // LATENT_SCALE) if in_tiles(tiled, width, height) else None
        return io.NodeOutput(bridge.cut_to_true_size(bridge.decode(vae, latent["samples"], tiles), latent))


NODES = [Flux1EncodeImage, Flux1DecodeImage]
