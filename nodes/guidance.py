"""Guidance that changes along a run."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from . import bridge
from .sampling import numbers


class Flux1GuidanceSchedule(io.ComfyNode):
    """Lets guidance change from step to step: low at first for freer composition and high later for detail, or the other
    way round. Replaces the number that the prompt was encoded with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1GuidanceSchedule",
            display_name="FLUX.1 Guidance Schedule",
            category="FLUX.1/sampling",
            description=getdoc(cls),
            search_aliases=["flux", "guidance", "flux guidance", "curve", "dynamic thresholding"],
            inputs=[
                io.Model.Input("model", tooltip="A FLUX.1 model with guidance: all but schnell."),
                io.String.Input(
                    "guidance",
                    default="1.5, 3.5",
                    tooltip="Values spread evenly over the run and joined by straight lines: 1.5, 3.5 rises all the way. "
                    "As many as there are steps: one for each.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this guidance, whatever the prompt says.")],
        )

    @classmethod
    def execute(cls, model: Any, guidance: str) -> io.NodeOutput:
        return io.NodeOutput(bridge.with_guidance(model, numbers(guidance, "guidance", "1.5, 3.5")))


NODES = [Flux1GuidanceSchedule]
