"""Following edges or depth with FLUX.1 Canny and Depth, and the maps for them."""

from __future__ import annotations

from inspect import getdoc
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..flux_core import canny, depth
from ..flux_core import image as pictures
from . import bridge
from .files import folder_of, folders, verdict, whole_numbers

DEPTH_FOLDER = "depth_anything"


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
                io.Image.Input("control_image", tooltip="Edges or depth, from FLUX.1 Canny Edges or FLUX.1 Depth Map."),
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
        encoded = bridge.encode(vae, padded)
        shown = {"concat_latent_image": encoded, bridge.NEEDS_CHANNELS: bridge.CONTROL_CHANNELS}
        latent = {"samples": encoded.new_zeros(encoded.shape), **bridge.true_size(pictures.size_of(control), padded)}
        return io.NodeOutput(bridge.with_values(conditioning, shown), latent)


class Flux1CannyEdges(io.ComfyNode):
    """The edges of a picture, white on black, pixel for pixel as FLUX.1 Canny saw them in training: OpenCV's Canny with
    thresholds 50 and 200 on the colours, without a blur."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        threshold = {"min": 0, "max": canny.MOST, "step": 1}
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
    def validate_inputs(cls, low: int | None = None, high: int | None = None) -> bool | str:
        return verdict(canny.check_thresholds, low, high) if whole_numbers(low, high) else True

    @classmethod
    def execute(cls, image: Any, low: int, high: int) -> io.NodeOutput:
        edges = canny.canny_edges(pictures.rgb(image), low, high)
        return io.NodeOutput(pictures.rgb(edges[..., None]), ui=bridge.said(cls, f"{edges.mean():.1%} edges"))


class Flux1DepthMap(io.ComfyNode):
    """The depth of a picture, near is bright, by depth-anything from a folder on this machine: as FLUX.1 Depth saw it in
    training, or stretched from black to white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        here = list(folders(DEPTH_FOLDER))
        return io.Schema(
            node_id="Flux1DepthMap",
            display_name="FLUX.1 Depth Map",
            category="FLUX.1/control",
            description=getdoc(cls),
            search_aliases=["flux", "depth", "depth anything", "preprocessor", "midas"],
            inputs=[
                io.Image.Input("image", tooltip="The picture."),
                io.Combo.Input(
                    "model_name",
                    options=[*here, *(name for name in depth.MODELS if name not in here)],
                    tooltip="A folder in models/depth_anything with config.json, preprocessor_config.json and "
                    "model.safetensors. FLUX.1 Depth was trained with depth-anything-large-hf.",
                ),
                io.Combo.Input(
                    "normalisation",
                    options=list(depth.NORMALISATIONS),
                    default="as trained",
                    tooltip="as trained: the network's own scale, as Black Forest Labs' code shows it. min-max: the "
                    "nearest is white, the farthest black; for networks of another scale.",
                ),
            ],
            outputs=[
                io.Image.Output("depth", tooltip="For FLUX.1 Control Conditioning."),
                io.Image.Output("coloured", tooltip="The same in colours, to look at: near is red, far is blue."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool | str:
        return verdict(checked_depth_network, model_name)

    @classmethod
    def execute(cls, image: Any, model_name: str, normalisation: str) -> io.NodeOutput:
        image = pictures.rgb(image)
        depth.check_size(*pictures.size_of(image))
        raw = bridge.predicted_depth(checked_depth_network(model_name), image)
        grey = depth.NORMALISATIONS[normalisation](raw, pictures.size_of(image))
        coloured = depth.coloured(depth.min_max(raw, pictures.size_of(image)))
        report = f"depth {raw.min():.3g} (far) to {raw.max():.3g} (near)"
        return io.NodeOutput(pictures.rgb(grey[..., None]), coloured, ui=bridge.said(cls, report))


def checked_depth_network(name: str) -> Path:
    """The folder of a depth network that is all there. Raises Flux1Error."""
    source = depth.MODELS.get(str(name)) or next(iter(depth.MODELS.values()))
    folder = folder_of(DEPTH_FOLDER, name, f"{', '.join(depth.FILES)} from {source}")
    depth.check_folder(folder)
    return folder


NODES = [Flux1ControlConditioning, Flux1CannyEdges, Flux1DepthMap]
