"""Nodes that make things go wrong, hung in through ComfyUI's own wrappers: for the tests' servers alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io


class FaultyModel(io.ComfyNode):
    """A MODEL that gives NaN, or runs out of memory, at one step of every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaultyModel",
            category="tests",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("step", min=1),
                io.Combo.Input("fault", options=["nan", "out of memory"]),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, step: int, fault: str) -> io.NodeOutput:
        def wrapper(executor: Any, x: Any, timestep: Any, *rest: Any, **settings: Any) -> Any:
            options = rest[-1]
            out = executor(x, timestep, *rest, **settings)
            if options["sigmas"][0] != options["sample_sigmas"][step - 1]:
                return out
            if fault == "nan":
                return out * float("nan")
            raise torch.OutOfMemoryError("injected")

        clone = model.clone()
        clone.add_wrapper(WrappersMP.DIFFUSION_MODEL, wrapper)
        return io.NodeOutput(clone)


class FaultyVae(io.ComfyNode):
    """A VAE whose decoding runs out of memory the first so many times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaultyVae",
            category="tests",
            inputs=[io.Vae.Input("vae"), io.Int.Input("times", min=0, max=1000)],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae: Any, times: int) -> io.NodeOutput:
        faulty = copy.copy(vae)
        faulty.first_stage_model = Decoder(vae.first_stage_model, times)
        return io.NodeOutput(faulty)


class Decoder:
    def __init__(self, model: torch.nn.Module, times: int):
        self.model, self.times = model, times

    def decode(self, samples: torch.Tensor, **options: Any) -> torch.Tensor:
        if self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("injected")
        return self.model.decode(samples, **options)


class Faulty(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FaultyModel, FaultyVae]


async def comfy_entrypoint() -> Faulty:
    return Faulty()
