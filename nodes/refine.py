"""Refining large pictures: the sampler in overlapping tiles."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

import torch
from comfy_api.latest import io

from ..flux_core.conditioning import LATENT_SCALE
from ..flux_core.tiles import tiles_over
from . import bridge
from .sampling import SEED, STEPS, shifted_sigmas


class Flux1TiledSampler(io.ComfyNode):
    """Adds detail to an enlarged picture, up to 4096 x 4096 and beyond: the model sees overlapping tiles of a size it was
    trained on, each at its true place in the picture, and they are blended at every step, so that no seam is left."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1TiledSampler",
            display_name="FLUX.1 Tiled Sampler",
            category="FLUX.1/sampling",
            description=getdoc(cls),
            search_aliases=["flux", "upscale", "refine", "tile", "ultimate sd upscale", "hires fix", "multidiffusion"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Conditioning.Input("positive", tooltip="The encoded prompt: what all of the picture shows."),
                io.Latent.Input("latent", tooltip="The enlarged picture, from FLUX.1 Encode Image."),
                SEED,
                STEPS,
                io.Float.Input(
                    "strength", default=0.3, min=0.0, max=1.0, step=0.01,
                    tooltip="How much is painted anew: 0.2 to 0.4 sharpens, more invents. Runs that share of the steps.",
                ),
                io.Int.Input(
                    "tile_size", default=1024, min=64, max=2048, step=16, tooltip="Side of a tile in pixels."
                ),
                io.Int.Input(
                    "overlap", default=128, min=0, max=512, step=16,
                    tooltip="How far neighbouring tiles share pixels, over which they are blended.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The refined latent.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        strength: float,
        tile_size: int,
        overlap: int,
    ) -> io.NodeOutput:
        bridge.check_tileable(positive, latent)
        latent = bridge.empty_fixed(model, latent)
        shared = min(overlap, tile_size // 2) // LATENT_SCALE
        tiles = tiles_over(*latent["samples"].shape[-2:], tile_size // LATENT_SCALE, shared)
        a_tile = {"samples": torch.empty(1, 1, tiles[0].height, tiles[0].width, device="meta")}
        sigmas, _ = shifted_sigmas(a_tile, bridge.variant_of(model), steps, strength)
        bridge.said(cls, f"{len(tiles)} tiles, {len(sigmas) - 1} steps")
        noise, sampler = bridge.noise_for(latent, seed, "comfyui"), bridge.tiled_euler(tiles, shared)
        return io.NodeOutput(bridge.sample(bridge.guider(model, positive), latent, noise, sigmas, seed, sampler))


NODES = [Flux1TiledSampler]
