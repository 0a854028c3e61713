"""Edits that lose nothing: a part of a picture out to the model and back into its place."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import image as pictures
from ..flux_core.edit.blend import BLENDS
from ..flux_core.edit.finish import COLOURS, finished
from ..flux_core.edit.region import FITS, SIZINGS, prepared
from . import bridge

REGION = io.Custom("FLUX1_REGION")
AROUND, WHOLE = "around mask", "whole picture"


class Flux1PrepareEdit(io.ComfyNode):
    """Cuts the part of a picture that is to be edited out of it, at a size that FLUX.1 works well at, whole tokens wide.
    FLUX.1 Finish Edit puts the result back; the region keeps the original and every step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def pixels(name: str, least: int, tooltip: str) -> io.Int.Input:
            return io.Int.Input(name, default=0, min=least, max=256, optional=True, advanced=True, tooltip=tooltip)

        return io.Schema(
            node_id="Flux1PrepareEdit",
            display_name="FLUX.1 Prepare Edit",
            category="FLUX.1/edit",
            description=getdoc(cls),
            search_aliases=["flux", "inpaint crop", "crop and stitch", "masked area only", "detailer", "kontext scale"],
            inputs=[
                io.Image.Input("image", tooltip="The picture, of any size from 16 pixels."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where it may change, of the picture's size. May be soft. Without: all of it.",
                ),
                io.Combo.Input(
                    "area",
                    options=[AROUND, WHOLE],
                    default=AROUND,
                    tooltip="What the model is shown: the mask's surroundings, or the whole picture.",
                ),
                io.Combo.Input(
                    "sizing",
                    options=list(SIZINGS),
                    default="megapixels",
                    tooltip="The size to work at: as many megapixels as set below, the nearest size that Kontext was "
                    "trained on, or the picture's own.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=0.01,
                    max=16.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="Of 1024 x 1024 pixels, for sizing megapixels. FLUX.1 is best at 1.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default="pad",
                    optional=True,
                    advanced=True,
                    tooltip="How the region comes to whole tokens, or to Kontext's shape: its edge repeated, stretched, "
                    "or cut off. What is cut off stays as it is in the picture.",
                ),
                io.Float.Input(
                    "context",
                    default=0.5,
                    min=0.0,
                    max=8.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much around the mask the model sees at each side, as a share of the mask's longer side; "
                    "32 pixels at least.",
                ),
                pixels("grow", -256, "Widen the mask by so many pixels; negative: narrow it."),
                pixels("blur", 0, "Soften the mask's edge over so many pixels to both sides."),
                io.Boolean.Input(
                    "fill_holes",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Mask also what the mask encloses.",
                ),
                REGION.Input(
                    "region",
                    optional=True,
                    tooltip="To go on from an earlier edit: the region of the FLUX.1 Finish Edit that the picture comes "
                    "from. What no edit has touched is then the first original's, whatever happened in between.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="What the model is to see."),
                io.Mask.Output(tooltip="Where it is to paint, of the same size."),
                REGION.Output("region", tooltip="For FLUX.1 Finish Edit."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        image: Any,
        area: str,
        sizing: str,
        megapixels: float,
        mask: Any = None,
        fit: str = "pad",
        context: float = 0.5,
        grow: int = 0,
        blur: int = 0,
        fill_holes: bool = False,
        region: Any = None,
    ) -> io.NodeOutput:
        ready = prepared(
            image, mask, whole=area == WHOLE, context=context, sizing=sizing, megapixels=megapixels, fit=fit,
            fill_holes=fill_holes, grow=grow, blur=blur, earlier=region,
        )  # fmt: skip
        said = "{} x {} of {} x {} pixels as {} x {}".format(*ready.box.size, *pictures.size_of(image), *ready.size)
        return io.NodeOutput(ready.image, ready.shown_mask, ready, ui=bridge.said(cls, said))


class Flux1FinishEdit(io.ComfyNode):
    """Puts an edited region back into its picture, at the picture's own size: colours corrected by what is known around
    the mask, the edge hidden, and every pixel outside the mask as it was, bit for bit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1FinishEdit",
            display_name="FLUX.1 Finish Edit",
            category="FLUX.1/edit",
            description=getdoc(cls),
            search_aliases=["flux", "inpaint stitch", "crop and stitch", "uncrop", "composite", "color match", "blend"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The edited picture, from the decoder. May have come back in another size."
                ),
                REGION.Input("region", tooltip="From FLUX.1 Prepare Edit."),
                io.Combo.Input(
                    "colour",
                    options=list(COLOURS),
                    default="local",
                    tooltip="Correct the edit's colours by the picture around the mask: one gain and offset for all of "
                    "it (global), or changing smoothly from place to place (local).",
                ),
                io.Combo.Input(
                    "blend",
                    options=list(BLENDS),
                    default="feather",
                    tooltip="How the mask's edge is hidden: one ramp; broad for colours and sharp for detail; or by "
                    "keeping the edit's gradients and the picture's colours at the edge.",
                ),
                io.Int.Input(
                    "blend_width",
                    default=16,
                    min=0,
                    max=256,
                    tooltip="Over so many pixels inside the mask's edge; 0: a hard edge.",
                ),
                io.Mask.Input(
                    "change_mask",
                    optional=True,
                    tooltip="White where the edit is wanted, instead of the region's mask: for edits made without one. Of "
                    "the picture's size or of the edited one's.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The picture at its own size."),
                io.Mask.Output("change", tooltip="White where a pixel's colour has changed."),
                io.String.Output("report", tooltip="Shift, scale, colour gain, and share of pixels changed."),
                REGION.Output("region", tooltip="For FLUX.1 Prepare Edit, to go on editing the result."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, image: Any, region: Any, colour: str, blend: str, blend_width: int, change_mask: Any = None
    ) -> io.NodeOutput:
        done = finished(image, region, change_mask, colour=colour, blend=blend, width=blend_width)
        return io.NodeOutput(done.image, done.change, done.report, done.region, ui=bridge.said(cls, done.report))


NODES = [Flux1PrepareEdit, Flux1FinishEdit]
