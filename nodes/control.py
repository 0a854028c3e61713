"""Following edges or depth with FLUX.1 Canny and Depth, and the maps for them."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import canny
from ..flux_core import image as pictures
from . import bridge


class Flux1ControlConditioning(io.ComfyNode):
    """Gives FLUX.1 Canny or Depth (or dev with their LoRA) the map to follow: edges or depth as a picture. A map of any
    size from 16 pixels is padded to whole tokens, which FLUX.1 Decode Image cuts off again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1ControlConditioning",
            display_name="FLUX.1 Control Conditioning",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "canny", "depth", "control", "instruct pix2pix conditioning", "controlnet"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt."),
                io.Vae.Input("vae", tooltip="FLUX.1's autoencoder."),
                io.Image.Input("control_image", tooltip="Edges or depth, from FLUX.1 Canny Edges or a depth node."),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The prompt with the map, for a Canny or Depth model."),
                io.Latent.Output(tooltip="Empty, of the map's size: for the sampler."),
            ],
        )

    @classmethod
    def execute(cls, conditioning: list, vae: Any, control_image: Any) -> io.NodeOutput:
        control = pictures.rgb(control_image)
        padded = pictures.pad_to_tokens(control)
        encoded = vae.encode(padded)
        shown = {"concat_latent_image": encoded, bridge.NEEDS_CHANNELS: bridge.CONTROL_CHANNELS}
        latent = {"samples": encoded.new_zeros(encoded.shape), **bridge.true_size(pictures.size_of(control), padded)}
        return io.NodeOutput(bridge.with_values(conditioning, shown), latent)


class Flux1CannyEdges(io.ComfyNode):
    """The edges of a picture, white on black, pixel for pixel as FLUX.1 Canny saw them in training: OpenCV's Canny with
    thresholds 50 and 200 on the colours, without a blur."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        threshold = {"min": 0, "max": 2000, "step": 1}
        return io.Schema(
            node_id="Flux1CannyEdges",
            display_name="FLUX.1 Canny Edges",
            category="FLUX.1/control",
            description=getdoc(cls),
            search_aliases=["flux", "canny", "edges", "preprocessor", "lineart"],
            inputs=[
                io.Image.Input("image", tooltip="The picture."),
                io.Int.Input(
                    "low", default=canny.LOW, **threshold, tooltip="Weaker gradients than this are never an edge."
                ),
                io.Int.Input(
                    "high", default=canny.HIGH, **threshold,
                    tooltip="Stronger gradients always are; between the two, what touches an edge.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="For FLUX.1 Control Conditioning.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: Any, low: int, high: int) -> io.NodeOutput:
        edges = canny.canny_edges(pictures.rgb(image), low, high)
        return io.NodeOutput(pictures.rgb(edges[..., None]), ui=bridge.said(cls, f"{edges.mean():.1%} edges"))


NODES = [Flux1ControlConditioning, Flux1CannyEdges]
