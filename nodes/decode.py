"""Pictures to latents and back, at their true size."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import image as pictures
from . import bridge


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
            ],
            outputs=[io.Latent.Output(tooltip="The encoded picture.")],
        )

    @classmethod
    def execute(cls, image: Any, vae: Any) -> io.NodeOutput:
        image = pictures.rgb(image)
        padded = pictures.pad_to_tokens(image)
        size = bridge.true_size(pictures.size_of(image), padded)
        return io.NodeOutput({"samples": bridge.encode(vae, padded), **size})


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
            ],
            outputs=[io.Image.Output(tooltip="The picture.")],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any], vae: Any) -> io.NodeOutput:
        return io.NodeOutput(bridge.cut_to_true_size(bridge.decode(vae, latent["samples"]), latent))


NODES = [Flux1EncodeImage, Flux1DecodeImage]
