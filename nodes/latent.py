"""Empty latents in the sizes FLUX.1 likes."""

from __future__ import annotations

from inspect import getdoc

import torch
from comfy_api.latest import io

from ..flux_core.conditioning import LATENT_SCALE
from ..flux_core.packing import token_count
from . import bridge

CUSTOM = "custom"
PRESETS: dict[str, tuple[int, int]] = {
    f"{name} ({width} x {height})": (width, height)
    for name, width, height in (
        ("1:1", 1024, 1024),
        ("4:3", 1152, 896),
        ("3:4", 896, 1152),
        ("3:2", 1216, 832),
        ("2:3", 832, 1216),
        ("16:9", 1344, 768),
        ("9:16", 768, 1344),
        ("21:9", 1536, 640),
        ("1:1 draft", 512, 512),
        ("1:1 large", 1440, 1440),
        ("3:2 large", 1728, 1152),
        ("16:9 large", 1920, 1088),
        ("1:1 largest", 2048, 2048),
    )
}


class Flux1EmptyLatent(io.ComfyNode):
    """An empty latent to start text to image from: 16 channels, sizes in whole tokens of 16 pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1EmptyLatent",
            display_name="FLUX.1 Empty Latent",
            category="FLUX.1/latent",
            description=getdoc(cls),
            search_aliases=["flux", "empty latent", "size", "resolution", "aspect ratio"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[CUSTOM, *PRESETS],
                    default=CUSTOM,
                    tooltip="An aspect ratio at a size FLUX.1 was trained near; custom takes width and height.",
                ),
                io.Int.Input("width", default=1024, min=16, max=4096, step=16, tooltip="In pixels, for custom."),
                io.Int.Input("height", default=1024, min=16, max=4096, step=16, tooltip="In pixels, for custom."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many pictures at once."),
            ],
            outputs=[io.Latent.Output(tooltip="Empty: the sampler fills it with noise.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, preset: str, width: int, height: int, batch_size: int) -> io.NodeOutput:
        width, height = PRESETS.get(preset, (width, height))
        # In whole tokens: the API lets any number through.
        cells = [-(-side // 16) * 16 // LATENT_SCALE for side in (height, width)]
        latent = {"samples": torch.zeros(batch_size, 16, *cells), "downscale_ratio_spacial": LATENT_SCALE}
        said = f"{cells[1] * LATENT_SCALE} x {cells[0] * LATENT_SCALE} pixels, {token_count(*cells)} tokens"
        return io.NodeOutput(latent, ui=bridge.said(cls, said))


NODES = [Flux1EmptyLatent]
