"""Inpainting and outpainting with FLUX.1 Fill."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import image as pictures
from ..flux_core import outpaint
from ..flux_core.conditioning import masked_pixels
from . import bridge
from .files import verdict, whole_numbers


class Flux1FillConditioning(io.ComfyNode):
    """Shows FLUX.1 Fill a picture and where to paint it anew. Works without any noise mask; pictures of any size from
    16 pixels are padded to whole tokens, which FLUX.1 Decode Image cuts off again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1FillConditioning",
            display_name="FLUX.1 Fill Conditioning",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "inpaint", "outpaint", "inpaint model conditioning", "fill", "mask"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt."),
                io.Vae.Input("vae", tooltip="FLUX.1's autoencoder."),
                io.Image.Input("image", tooltip="The picture to complete."),
                io.Mask.Input("mask", tooltip="White where to paint anew, of the picture's size. May be soft."),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-256,
                    max=256,
                    optional=True,
                    advanced=True,
                    tooltip="Widen the mask by so many pixels; negative: narrow it.",
                ),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=256,
                    optional=True,
                    advanced=True,
                    tooltip="Soften the mask's edge over so many pixels to both sides.",
                ),
                io.Boolean.Input(
                    "noise_mask",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also hold the latent outside the mask to the original at every step. Fill does not need "
                    "it, and blends better without.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The prompt with picture and mask, for a Fill model."),
                io.Latent.Output(tooltip="The picture, encoded: for the sampler."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        conditioning: list,
        vae: Any,
        image: Any,
        mask: Any,
        grow: int = 0,
        feather: int = 0,
        noise_mask: bool = False,
    ) -> io.NodeOutput:
        image, mask = pictures.image_and_mask(image, mask)
        mask = pictures.feathered(pictures.grown(mask, grow), feather)
        size = pictures.size_of(image)
        image, mask = pictures.pad_to_tokens(image), pictures.pad_to_tokens(mask[..., None])[..., 0]
        shown = {
            "concat_latent_image": bridge.encode(vae, masked_pixels(image, mask)),
            "concat_mask": mask[:, None],
            bridge.NEEDS_CHANNELS: bridge.FILL_CHANNELS,
        }
        latent = {"samples": bridge.encode(vae, image), **bridge.true_size(size, image)}
        if noise_mask:
            latent["noise_mask"] = mask[:, None]
        share = f"{mask.mean():.1%} of {size[0]} x {size[1]} pixels to paint"
        return io.NodeOutput(bridge.with_values(conditioning, shown), latent, ui=bridge.said(cls, share))


class Flux1PadForOutpaint(io.ComfyNode):
    """Adds room around a picture and masks it, for FLUX.1 Fill Conditioning to paint in. No size has to be a multiple of
    anything."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def room(side: str, default: int = 0) -> io.Int.Input:
            tooltip = f"Pixels to add {side}."
            return io.Int.Input(side, default=default, min=0, max=outpaint.MOST, tooltip=tooltip)

        return io.Schema(
            node_id="Flux1PadForOutpaint",
            display_name="FLUX.1 Pad for Outpaint",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "outpaint", "extend", "expand image", "pad image", "uncrop", "fill"],
            inputs=[
                io.Image.Input("image", tooltip="The picture to extend."),
                room("left", 256),
                room("top"),
                room("right", 256),
                room("bottom"),
                io.Int.Input(
                    "feather",
                    default=24,
                    min=0,
                    max=256,
                    optional=True,
                    advanced=True,
                    tooltip="How many of the picture's own pixels next to the room are painted over, less and less: "
                    "hides the seam.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The larger picture, grey where it is to be painted."),
                io.Mask.Output(tooltip="White in the new room, fading into the picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, left: int | None = None, top: int | None = None, right: int | None = None, bottom: int | None = None
    ) -> bool | str:
        sides = (left, top, right, bottom)
        return verdict(outpaint.check_room, *sides) if whole_numbers(*sides) else True

    @classmethod
    def execute(cls, image: Any, left: int, top: int, right: int, bottom: int, feather: int = 0) -> io.NodeOutput:
        image = pictures.rgb(image)
        larger, mask = outpaint.padded_for_outpaint(image, left, top, right, bottom, feather)
        sizes = "{} x {} becomes {} x {}".format(*pictures.size_of(image), *pictures.size_of(larger))
        return io.NodeOutput(larger, mask, ui=bridge.said(cls, sizes))


NODES = [Flux1FillConditioning, Flux1PadForOutpaint]
