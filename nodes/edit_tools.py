"""Around an edit: point at what to edit, lay the result back over its source, find what it changed."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

import torch
from comfy_api.latest import io

from ..flux_core import image as pictures
from ..flux_core.edit import boxes as frames
from ..flux_core.edit.align import Registration, register, undone
from ..flux_core.edit.change import changed, recoloured
from ..flux_core.errors import Flux1Error
from . import bridge
from .files import verdict


class Flux1AlignEdit(io.ComfyNode):
    """Finds how far an edit has moved, enlarged or turned the picture without being asked to, and undoes it, to a fraction
    of a pixel. What was edited may be large. Where it can't be told, or there is nothing to undo, the picture stays as it
    is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1AlignEdit",
            display_name="FLUX.1 Align Edit",
            category="FLUX.1/edit",
            description=getdoc(cls),
            search_aliases=["flux", "kontext", "register", "registration", "shift", "drift", "zoom", "stabilize"],
            inputs=[
                io.Image.Input("source", tooltip="The picture before the edit; the result has its size."),
                io.Image.Input("edited", tooltip="The picture after it; of another size, it is scaled first."),
            ],
            outputs=[
                io.Image.Output(tooltip="The edited picture, laid over its source."),
                io.String.Output("report", tooltip="What was found and done, a line for each picture."),
                io.Mask.Output(
                    "outside",
                    tooltip="White at the edge where the edited picture has nothing to lay there: the source shows, in "
                    "the edit's colours.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, source: Any, edited: Any) -> io.NodeOutput:
        source = pictures.rgb(source)
        edited = pictures.resized(pictures.rgb(edited), pictures.size_of(source))
        images, outsides, lines = [], [], []
        for before, after in pairs(source, edited):
            registration = register(before, after)
            image, outside = after, torch.zeros_like(after[..., 0])
            if registration.to_undo:
                image, outside = undone(after, registration.found)
                image = torch.where(outside[..., None] > 0, recoloured(before, image), image)
            images.append(image)
            outsides.append(outside)
            lines.append(told(registration))
        report = "\n".join(lines)
        return io.NodeOutput(torch.stack(images), report, torch.stack(outsides), ui=bridge.said(cls, report))


def told(registration: Registration) -> str:
    if registration.doubt:
        return f"left as it is: {registration.doubt}"
    if not registration.to_undo:
        return f"left as it is: it lies over its source, to {max(registration.movement, 0.01):.2f} pixels"
    known = (
        f"known to {max(registration.uncertainty, 0.01):.2f} pixels, {registration.agreeing:.0%} of the picture agree"
    )
    return f"undone: {registration.found}; {known}"


def pairs(source: torch.Tensor, edited: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each edited picture with its source, which may be one for all. Raises Flux1Error when the batches don't match."""
    if len(source) not in (1, len(edited)):
        raise Flux1Error(
            "The batches of source and edited pictures don't match",
            expected=f"a batch of {len(edited)} sources, or 1",
            found=f"{len(source)}",
            fix="give one source for all edited pictures, or one for each",
        )
    return list(zip(source.expand(len(edited), -1, -1, -1), edited, strict=True))


class Flux1ChangeMask(io.ComfyNode):
    """Finds what an edit without a mask really changed, leaving drifted colours, noise and lost detail out of account:
    where to keep the edit. Everything else can then be put back as it was."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1ChangeMask",
            display_name="FLUX.1 Change Mask",
            category="FLUX.1/edit",
            description=getdoc(cls),
            search_aliases=["flux", "kontext", "difference", "change detection", "diff mask", "auto mask"],
            inputs=[
                io.Image.Input("source", tooltip="The picture before the edit."),
                io.Image.Input("edited", tooltip="The picture after it, from FLUX.1 Align Edit."),
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    tooltip="From this difference of colours on it is a change; it may be larger where there is much "
                    "detail. 0: chosen by how much the picture differs all over; the node says what it took.",
                ),
                io.Int.Input(
                    "grow", default=4, min=-256, max=256,
                    tooltip="Widen the mask by so many pixels, so that no rim of the edit is lost; negative: narrow it.",
                ),
                io.Int.Input(
                    "feather", default=0, min=0, max=256,
                    tooltip="Soften the mask's edge over so many pixels to both sides.",
                ),
                io.Float.Input(
                    "minimum_size", default=0.1, min=0.0, max=100.0, step=0.05, optional=True, advanced=True,
                    tooltip="Leave out islands smaller than this, in percent of the picture.",
                ),
                io.Boolean.Input(
                    "fill_holes", default=True, optional=True, advanced=True,
                    tooltip="Take what a change encloses as changed too.",
                ),
            ],
            outputs=[io.Mask.Output(tooltip="White where the edit changed something.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        source: Any,
        edited: Any,
        threshold: float,
        grow: int,
        feather: int,
        minimum_size: float = 0.1,
        fill_holes: bool = True,
    ) -> io.NodeOutput:
        source, edited = pictures.rgb(source), pictures.rgb(edited)
        sizes = ["{} x {}".format(*pictures.size_of(each)) for each in (source, edited)]
        if sizes[0] != sizes[1]:
            raise Flux1Error(
                "Source and edited picture are not of one size",
                expected=sizes[0],
                found=sizes[1],
                fix="put FLUX.1 Align Edit between them",
            )
        found = [changed(*pair, threshold, minimum_size / 100, fill_holes) for pair in pairs(source, edited)]
        masks = torch.stack([mask for mask, _ in found])
        lines = [f"{mask.mean():.1%} changed, by more than {least:.3f}" for mask, least in found]
        masks = pictures.feathered(pictures.grown(masks, grow), feather)
        return io.NodeOutput(masks, ui=bridge.said(cls, "\n".join(lines)))


class Flux1BoxPrompt(io.ComfyNode):
    """Draws boxes on a picture for a prompt to point at: put a hat on the cat in the red box. The mask has the same boxes,
    so that an edit by FLUX.1 Kontext stays in them. The frames lie around the boxes, where the picture is put back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1BoxPrompt",
            display_name="FLUX.1 Box Prompt",
            category="FLUX.1/edit",
            description=getdoc(cls),
            search_aliases=["flux", "kontext", "bounding box", "bbox", "draw rectangle", "region prompt", "grounding"],
            inputs=[
                io.Image.Input("image", tooltip="The picture to edit."),
                io.String.Input(
                    "boxes",
                    default="",
                    multiline=True,
                    tooltip="A line for each box: x, y, width, height in pixels. Before it, if wanted, a label: "
                    "cat: 120, 80, 200, 160.",
                ),
                io.String.Input(
                    "colours",
                    default="red",
                    tooltip="Of the boxes in turn: red, blue, green, yellow, purple, orange, cyan, pink. Where too few "
                    "are named, those left follow.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="A box around each of its islands."),
                io.BoundingBox.Input(
                    "bboxes",
                    optional=True,
                    force_input=True,
                    tooltip="Boxes drawn with Create Bounding Boxes, or found by a detector.",
                ),
                io.Int.Input(
                    "thickness", default=0, min=0, max=64, optional=True, advanced=True,
                    tooltip="Of the frames in pixels. 0: by the picture's size.",
                ),
                io.Boolean.Input(
                    "labels", default=True, optional=True, advanced=True, tooltip="Write the labels beside the boxes."
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The picture with the boxes, for FLUX.1 Kontext Reference."),
                io.Mask.Output(tooltip="White in the boxes."),
                io.String.Output("text", tooltip="The boxes for a prompt: the red box and the blue box."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, boxes: str | None = None, colours: str | None = None) -> bool | str:
        # None: linked, and known when it runs
        fine = True if boxes is None else verdict(frames.parsed, boxes)
        return fine if fine is not True or colours is None else verdict(frames.chosen, colours)

    @classmethod
    def execute(
        cls,
        image: Any,
        boxes: str,
        colours: str,
        mask: Any = None,
        bboxes: Any = None,
        thickness: int = 0,
        labels: bool = True,
    ) -> io.NodeOutput:
        image = pictures.rgb(image)
        width, height = pictures.size_of(image)
        given = frames.parsed(boxes)
        if bboxes:
            given += frames.detected(bboxes)
        if mask is not None:
            image, mask = pictures.image_and_mask(image, mask)
            given += frames.islands(mask.amax(0))
        if not given:
            raise Flux1Error(
                "There is no box",
                expected="a line in boxes, a mask with white islands, or connected bboxes",
                found="none of them",
                fix="write x, y, width, height into boxes, or connect one of the two",
            )
        given = [box.within(width, height) for box in given]
        names = frames.coloured(len(given), frames.chosen(colours))
        drawn = frames.drawn(image, given, names, thickness or max(3, round(max(width, height) / 200)), labels)
        filled = frames.filled(given, width, height).to(image).expand(len(image), -1, -1)
        text = frames.named(names)
        return io.NodeOutput(drawn, filled, text, ui=bridge.said(cls, text))


NODES = [Flux1AlignEdit, Flux1ChangeMask, Flux1BoxPrompt]
