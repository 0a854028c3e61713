"""Editing with FLUX.1 Kontext: reference pictures beside the one that is painted."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import cost, packing, references
from ..flux_core import image as pictures
from . import bridge
from .files import verdict
from .lists import padded, parsed


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
            search_aliases=["flux", "kontext", "reference latent", "references", "image edit", "kontext image scale"],
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
                io.Int.Input(
                    "budget",
                    default=0,
                    min=0,
                    max=65536,
                    optional=True,
                    advanced=True,
                    tooltip="At most so many tokens for each reference, which is shown smaller where it has more; 0: no "
                    "limit. 1024 x 1024 pixels are 4096 tokens.",
                ),
                io.String.Input(
                    "scales",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="A scale for each reference in turn: 1, 0.5. Where empty: scale.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="How much each reference counts, in turn: 1, 0.5; at 2 as if it were there twice, at 0 not at "
                    "all. Where empty: 1. Needs a model from FLUX.1 Load Model.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The instruction with its references."),
                io.Latent.Output(tooltip="The first reference, encoded: for the sampler."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, scales: str | None = None, weights: str | None = None, images: Any = None) -> bool | str:
        # None: linked, or not given. images: ComfyUI passes inputs that grow to whoever validates anything
        fine = verdict(parsed, scales or "", "scales", 1.0)
        return verdict(parsed, weights or "") if fine is True else fine

    @classmethod
    def execute(
        cls,
        conditioning: list,
        vae: Any,
        images: dict[str, Any],
        sizing: str,
        placement: str = "offset",
        scale: float = 1.0,
        budget: int = 0,
        scales: str = "",
        weights: str = "",
    ) -> io.NodeOutput:
        sized = [pictures.SIZINGS[sizing](pictures.rgb(image)) for image in images.values() if image is not None]
        sizes = [pictures.size_of(picture.image) for picture in sized]
        factors = [
            references.scale_within(size, factor, budget)
            for size, factor in zip(
                sizes, padded(parsed(scales, "scales", 1.0), len(sized), "scales", scale), strict=True
            )
        ]
        counted = padded(parsed(weights), len(sized))
        said = report(sizes, factors, counted)
        bridge.said(cls, said)  # before the encoder, too, takes its time
        canvas = bridge.encode(vae, sized[0].image)
        shown = [pictures.scaled(picture.image, factor) for picture, factor in zip(sized, factors, strict=True)]
        latents = [canvas if picture is sized[0].image else bridge.encode(vae, picture) for picture in shown]
        if min(factors) < 1:
            placement = "canvas"
        conditioning = bridge.with_references(conditioning, latents, placement, counted)
        latent = {"samples": canvas, **bridge.true_size(sized[0].size, sized[0].image)}
        return io.NodeOutput(conditioning, latent, ui=bridge.said(cls, said))


def report(sizes: list[tuple[int, int]], factors: list[float], weights: list[float]) -> str:
    """At which sizes the references are shown, how many tokens that is, and what they cost."""
    seen = [(size, factor) for size, factor, weight in zip(sizes, factors, weights, strict=True) if weight > 0]
    if not seen:
        return "no reference: all weights are 0"
    counts = [references.tokens_of(size, factor) for size, factor in seen]
    shown, tokens = ", ".join("{} x {}".format(*size) for size, _ in seen), " + ".join(map(str, counts))
    times = cost.slowdown(references.tokens_of(sizes[0]), sum(counts))
    return f"{len(counts)} reference(s) at {shown}, {tokens} tokens: a step takes about {times:.1f} times as long"


NODES = [Flux1KontextReference]
