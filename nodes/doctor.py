"""The doctor: which models are there, what they can do, what a picture takes, and which settings are off."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from inspect import getdoc
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..flux_core import doctor
from ..flux_core.conditioning import LATENT_SCALE
from ..flux_core.errors import Flux1Error
from . import bridge
from .files import folders, names, source_of


class Flux1Doctor(io.ComfyNode):
    """Looks at the FLUX.1 files in the model folders, by their headers alone, and says what can be done with them, what
    is missing, broken or doesn't fit, what a picture takes of memory and time, and which settings cost quality or
    speed. Connect a run's model, prompt, noise levels and latent to have them looked at, too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 1024, "min": 16, "max": 4096, "step": 16}
        return io.Schema(
            node_id="Flux1Doctor",
            display_name="FLUX.1 Doctor",
            category="FLUX.1/help",
            description=getdoc(cls),
            search_aliases=["flux", "doctor", "check", "diagnose", "missing models", "vram", "memory", "time", "help"],
            is_output_node=True,
            inputs=[
                io.Int.Input("width", **side, tooltip="Of the picture to estimate, in pixels."),
                io.Int.Input("height", **side, tooltip="Of the picture to estimate, in pixels."),
                io.Model.Input("model", optional=True, tooltip="A run's model: the others are held against it."),
                io.Conditioning.Input("conditioning", optional=True, tooltip="The run's prompt."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="The run's noise levels."),
                io.Latent.Input("latent", optional=True, tooltip="The run's latent; its size is estimated."),
            ],
            outputs=[
                io.String.Output("report", display_name="report", tooltip="All that was found, in Markdown."),
                io.String.Output("json", display_name="json", tooltip="The same as JSON, for programs."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return time.time_ns()  # files come and go: it looks anew each time

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        model: Any = None,
        conditioning: list | None = None,
        sigmas: Any = None,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        size = (width, height)
        if latent is not None:
            size = tuple(side * LATENT_SCALE for side in latent["samples"].shape[:-3:-1])
        report = doctor.examine(files(), size, bridge.device_at_hand(), source_of)
        run, options = settings(model, conditioning, sigmas, latent, size), bridge.check_options(report.largest)
        report = report.with_findings([*run, *options])
        return io.NodeOutput(
            report.page(), json.dumps(report.data(), indent=2), ui=bridge.said(cls, report.summary())
        )  # fmt: skip


def files() -> Iterator[doctor.ModelFile]:
    """Every .safetensors file that ComfyUI lists in the folders that FLUX.1's models belong in, and depth networks."""
    for folder in doctor.FOLDERS:
        for name in names(folder):
            # A link that leads nowhere has no path: it can't be read where it should be.
            path = folder_paths.get_full_path(folder, name) or os.path.join(
                folder_paths.get_folder_paths(folder)[0], name
            )
            yield doctor.look_into(folder, name, path)
    yield from map(doctor.look_into_depth_network, folders(doctor.DEPTH_FOLDER).values())


def settings(
    model: Any, conditioning: list | None, sigmas: Any, latent: dict[str, Any] | None, size: tuple[int, int]
) -> Iterator[doctor.Finding]:
    """What is off in a run, as far as it is connected; without the model only the latent can be judged."""
    if latent is not None:
        yield from doctor.check_latent(latent["samples"].shape, size)
    if model is None:
        return
    try:
        variant, width = bridge.variant_of(model), bridge.text_width(model)
    except Flux1Error as refusal:
        yield doctor.Finding("error", f"{refusal.problem}: it is {refusal.found}", refusal.fix)
        return
    for prompt in bridge.prompts(conditioning or []):
        yield from doctor.check_prompt(prompt, variant, width)
    if sigmas is not None:
        yield from doctor.check_sigmas(sigmas, variant, size)


NODES = [Flux1Doctor]
