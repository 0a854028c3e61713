"""Editing with FLUX.1 Kontext: reference pictures beside the one that is painted."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import cost, packing
from ..flux_core import image as pictures
from . import bridge


class Flux1KontextReference(io.ComfyNode):
    """Gives FLUX.1 Kontext one or more reference pictures, each at its own size and aspect ratio. The first one also
    sets the size of the result. To edit a result further without decoding it, pass its LATENT through ReferenceLatent.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1KontextReference",
            display_name="FLUX.1 Kontext Reference",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "kontext", "reference latent", "edit", "image edit", "kontext image scale"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded instruction."),
                io.Vae.Input("vae", tooltip="FLUX.1's autoencoder."),
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input("image", tooltip="A reference picture of any size."),
                        prefix="image",
                        min=1,
                        max=8,
                    ),
                    tooltip="Reference pictures; the first one is the picture to edit.",
                ),
                io.Combo.Input(
                    "sizing",
                    options=list(pictures.SIZINGS),
                    default="stretch",
                    tooltip="stretch, crop or pad to the nearest of the sizes Kontext was trained on (about one "
                    "megapixel), or keep the picture's own size, rounded to 16.",
                ),
                io.Combo.Input(
                    "placement",
                    options=list(packing.COMFYUIS_PLACEMENTS),
                    default="offset",
                    optional=True,
                    advanced=True,
                    tooltip="Where several references stand: offset, as Kontext was trained, side by side; index, each "
                    "one an image of its own; uxo, diagonally beyond the picture (UNO, USO).",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.1,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Below 1 the references are shown that much smaller, each stretched over the picture by its "
                    "positions: at 0.5 a quarter of the tokens. Faster, but fine detail is lost.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The instruction with its references."),
                io.Latent.Output(tooltip="The first reference, encoded: for the sampler."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        conditioning: list,
        vae: Any,
        images: dict[str, Any],
        sizing: str,
        placement: str = "offset",
        scale: float = 1.0,
    ) -> io.NodeOutput:
        sized = [pictures.SIZINGS[sizing](pictures.rgb(image)) for image in images.values() if image is not None]
        canvas = vae.encode(sized[0].image)
        latents = [canvas, *(vae.encode(picture.image) for picture in sized[1:])]
        if scale < 1:
            latents, placement = [vae.encode(pictures.scaled(picture.image, scale)) for picture in sized], "canvas"
        conditioning = bridge.with_values(conditioning, {"reference_latents": latents}, append=True)
        conditioning = bridge.with_values(conditioning, {"reference_latents_method": placement})
        latent = {"samples": canvas, **bridge.true_size(sized[0].size, sized[0].image)}
        return io.NodeOutput(conditioning, latent, ui=bridge.said(cls, report(sized, canvas, latents)))


def report(sized: list[pictures.Sized], canvas: Any, latents: list) -> str:
    """At which sizes the references are shown, how many tokens that is, and what they cost."""
    sizes = ", ".join("{} x {}".format(*pictures.size_of(picture.image)) for picture in sized)
    whole, *counts = (packing.token_count(*latent.shape[-2:]) for latent in (canvas, *latents))
    cost_of_step = f"a step takes about {cost.slowdown(whole, sum(counts)):.1f} times as long"
    return f"{len(counts)} reference(s) at {sizes}, {' + '.join(map(str, counts))} tokens: {cost_of_step}"


NODES = [Flux1KontextReference]
