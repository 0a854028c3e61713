"""Nodes that make things go wrong, hung in through ComfyUI's own wrappers: for the tests' servers alone."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io


def out_of_memory(velocity: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("injected")


def slow(velocity: torch.Tensor) -> torch.Tensor:
    time.sleep(0.12)  # ComfyUI reports no progress twice within 0.1 s
    return velocity


FAULTS = {"nan": lambda velocity: velocity * float("nan"), "out of memory": out_of_memory, "slow": slow}


class FaultyModel(io.ComfyNode):
    """A MODEL that gives NaN, runs out of memory, or takes its time, at one step of every run (0: at each)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaultyModel",
            category="tests",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("step", min=0),
                io.Combo.Input("fault", options=list(FAULTS)),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, step: int, fault: str) -> io.NodeOutput:
        def wrapper(executor: Any, x: Any, timestep: Any, *rest: Any, **settings: Any) -> Any:
            options = rest[-1]
            velocity = executor(x, timestep, *rest, **settings)
            strikes = step == 0 or options["sigmas"][0] == options["sample_sigmas"][step - 1]
            return FAULTS[fault](velocity) if strikes else velocity

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
    """An autoencoder's decoder that fails the first so many times."""

    def __init__(self, model: torch.nn.Module, times: int):
        self.model, self.times = model, times

    def decode(self, samples: torch.Tensor, **options: Any) -> torch.Tensor:
        if self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("injected")
        return self.model.decode(samples, **options)


class Faulty(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FaultyModel, FaultyVae]


async def comfy_entrypoint() -> Faulty:
    return Faulty()
