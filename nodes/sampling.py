"""Sampling: the schedule from the latent's size, Euler on packed latents."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

import torch
from comfy_api.latest import io

from ..flux_core import packing, schedule
from ..flux_core.errors import Flux1Error
from . import bridge

BY_MODEL, BY_SIZE, CONSTANT, OFF = "by model", "by size", "constant", "off"
BFL, COMFYUI = "skip steps", "stretch"

STEPS = io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="dev 20 to 50, Kontext 30, Fill 50, schnell 4.")
SEED = io.Int.Input(
    "seed",
    default=0,
    min=0,
    max=2**64 - 1,
    control_after_generate=True,
    tooltip="Another number, another picture.",
)
STRENGTH = io.Float.Input(
    "strength",
    default=1.0,
    min=0.0,
    max=1.0,
    step=0.01,
    tooltip="1 paints from pure noise, less keeps more of the latent's picture, 0 returns it untouched. Runs the last "
    "steps of the schedule: 0.5 of 20 steps is 10.",
)


def shifted_sigmas(
    latent: dict[str, Any],
    variant: Any,
    steps: int,
    strength: float = 1.0,
    *,
    shift: str = BY_MODEL,
    strength_mode: str = BFL,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    constant_shift: float = 3.0,
    curve: schedule.ShiftKind = "exponential",
    terminal: float = 0.0,
    custom: list[float] | None = None,
    inverted: bool = False,
) -> tuple[torch.Tensor, float | None]:
    """The schedule for `latent`, and the mu it was shifted with (None: by a constant or not at all)."""
    tokens = packing.token_count(*latent["samples"].shape[-2:])
    by_size = shift == BY_SIZE or (shift == BY_MODEL and (variant is None or variant.shifted))
    mu = schedule.shift_for(tokens, base_shift, max_shift) if by_size else None
    stretched = strength_mode == COMFYUI and 0 < strength < 1
    try:
        sigmas = schedule.sigmas(
            None if custom else schedule.stretched_steps(steps, strength) if stretched else steps,
            mu,
            kind=curve,
            shift=constant_shift if shift == CONSTANT else 1.0,
            terminal=terminal or None,
            custom=custom or None,
            inverted=inverted,
        )
    except ValueError as error:
        raise Flux1Error(
            "The schedule's settings don't make a schedule",
            expected="noise levels that fall from 1 to 0, a finite shift above 0",
            found=str(error),
            fix="set shift to by model, and clear custom_sigmas",
        ) from error
    return (sigmas[-(steps + 1) :] if stretched else schedule.from_strength(sigmas, strength)), mu


class Flux1Scheduler(io.ComfyNode):
    """The noise levels of a run, shifted by the latent's own size: what the model was trained on, with nothing to type
    in. Reference pictures don't count."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1Scheduler",
            display_name="FLUX.1 Scheduler",
            category="FLUX.1/sampling",
            description=getdoc(cls),
            search_aliases=["flux", "sigmas", "model sampling flux", "time shift", "dynamic shift", "basic scheduler"],
            inputs=[
                io.Latent.Input("latent", tooltip="Its size sets the shift."),
                STEPS,
                STRENGTH,
                io.Model.Input("model", optional=True, tooltip="schnell turns the shift off; without: dev."),
                io.Combo.Input(
                    "shift",
                    options=[BY_MODEL, BY_SIZE, CONSTANT, OFF],
                    default=BY_MODEL,
                    optional=True,
                    advanced=True,
                    tooltip="by model: by size, but off for schnell. constant uses constant_shift.",
                ),
                io.Float.Input(
                    "base_shift",
                    default=0.5,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="mu at 256 tokens (256 x 256 pixels).",
                ),
                io.Float.Input(
                    "max_shift",
                    default=1.15,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="mu at 4096 tokens (1024 x 1024 pixels). Larger pictures go beyond it.",
                ),
                io.Float.Input(
                    "constant_shift",
                    default=3.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="s in s * t / (1 + (s - 1) * t), where shift is constant.",
                ),
                io.Combo.Input(
                    "curve",
                    options=["exponential", "linear"],
                    default="exponential",
                    optional=True,
                    advanced=True,
                    tooltip="Whether mu enters as e^mu (FLUX.1) or as it is.",
                ),
                io.Float.Input(
                    "terminal",
                    default=0.0,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Stretch the schedule so that its last level before 0 is this; 0: don't.",
                ),
                io.String.Input(
                    "custom_sigmas",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Noise levels of your own before the shift, falling from 1, without the last 0: "
                    "1, 0.75, 0.5, 0.25. Replaces steps.",
                ),
                io.Combo.Input(
                    "strength_mode",
                    options=[BFL, COMFYUI],
                    default=BFL,
                    optional=True,
                    advanced=True,
                    tooltip="Below strength 1: skip the first steps (Black Forest Labs, diffusers), or run all steps "
                    "over the last part of a longer schedule (ComfyUI's denoise).",
                ),
                io.Boolean.Input(
                    "inverted",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="From 0 to 1: to turn a picture back into noise.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="For Flux1Sampler or SamplerCustomAdvanced.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        latent: dict[str, Any],
        steps: int,
        strength: float,
        model: Any = None,
        shift: str = BY_MODEL,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        constant_shift: float = 3.0,
        curve: str = "exponential",
        terminal: float = 0.0,
        custom_sigmas: str = "",
        strength_mode: str = BFL,
        inverted: bool = False,
    ) -> io.NodeOutput:
        sigmas, mu = shifted_sigmas(
            latent,
            bridge.variant_of(model) if model is not None else None,
            steps,
            strength,
            shift=shift,
            strength_mode=strength_mode,
            base_shift=base_shift,
            max_shift=max_shift,
            constant_shift=constant_shift,
            curve=curve,
            terminal=terminal,
            custom=numbers(custom_sigmas),
            inverted=inverted,
        )
        shifted = f"shift mu {mu:.3f}" if mu is not None else "no shift by size"
        return io.NodeOutput(sigmas, ui=bridge.said(cls, f"{len(sigmas) - 1} steps, {shifted}"))


def numbers(text: str, name: str = "custom_sigmas", example: str = "1, 0.75, 0.5, 0.25") -> list[float]:
    """Numbers from the text of input `name`, separated by commas or space. Raises Flux1Error."""
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise Flux1Error(
            f"{name} can't be read", expected=f"numbers such as {example}", found=text, fix="correct it"
        ) from error


class Flux1Sampler(io.ComfyNode):
    """Paints: Euler over the schedule that fits the latent's size and the model. Nothing else to set for a good result;
    connect sigmas for a schedule of your own, or a negative prompt for true CFG."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1Sampler",
            display_name="FLUX.1 Sampler",
            category="FLUX.1/sampling",
            description=getdoc(cls),
            search_aliases=["flux", "ksampler", "sampler custom advanced", "euler", "img2img", "denoise"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Conditioning.Input("positive", tooltip="The encoded prompt, with what Fill or Kontext add to it."),
                io.Latent.Input("latent", tooltip="Empty, or a picture to start from (strength below 1)."),
                SEED,
                STEPS,
                STRENGTH,
                io.Combo.Input(
                    "noise",
                    options=["comfyui", "bfl"],
                    default="comfyui",
                    optional=True,
                    advanced=True,
                    tooltip="What a seed means: ComfyUI's float32 noise, or the bfloat16 noise of Black Forest Labs' "
                    "own code. The same seed gives unrelated pictures.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="What not to paint; takes cfg above 1."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="True classifier-free guidance against negative, at twice the time. 1: off.",
                ),
                io.Sigmas.Input("sigmas", optional=True, tooltip="A schedule instead of steps and strength."),
                io.Float.Input(
                    "cfg_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="The share of the steps after which cfg begins.",
                ),
                io.Float.Input(
                    "cfg_end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="The share of the steps after which cfg ends: 0.3 saves most of its time and keeps most of "
                    "its effect.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The painted latent.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        strength: float,
        noise: str = "comfyui",
        negative: list | None = None,
        cfg: float = 1.0,
        sigmas: torch.Tensor | None = None,
        cfg_start: float = 0.0,
        cfg_end: float = 1.0,
    ) -> io.NodeOutput:
        if negative is None and cfg != 1:
            raise Flux1Error(
                "cfg needs a negative prompt",
                expected="negative connected, or cfg 1",
                found=f"cfg {cfg:g} and no negative",
                fix="connect a Flux1TextEncode (it may be empty) to negative, or set cfg to 1",
            )
        variant = bridge.variant_of(model)
        latent = bridge.empty_fixed(model, latent)
        if sigmas is None:
            sigmas, _ = shifted_sigmas(latent, variant, steps, strength)
        drawn, guider = (
            bridge.noise_for(latent, seed, noise),
            bridge.guider(model, positive, negative, cfg, (cfg_start, cfg_end)),
        )
        return io.NodeOutput(bridge.sample(guider, latent, drawn, sigmas, seed))


class Flux1EulerSampler(io.ComfyNode):
    """FLUX.1 Sampler's Euler as a SAMPLER, for SamplerCustomAdvanced and other nodes that take one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1EulerSampler",
            display_name="FLUX.1 Euler Sampler",
            category="FLUX.1/sampling",
            description=getdoc(cls),
            search_aliases=["flux", "euler", "ksampler select", "custom sampler"],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(bridge.euler_sampler())


NODES = [Flux1Scheduler, Flux1Sampler, Flux1EulerSampler]
