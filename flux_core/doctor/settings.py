"""Settings of a run held against what the model's authors run it with, and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from .. import schedule
from ..checkpoint.check import LATENT_CHANNELS
from ..variants import Variant
from .estimate import tokens_of

REDUX_TOKENS = 729  # of each picture, after the prompt's
DEFAULT_GUIDANCE = 3.5  # what ComfyUI takes where conditioning says none
FEW, MANY = 0.4, 2.0
"""Shares of the authors' steps: 20 of dev's 50 are common and good."""
GUIDANCE_FACTOR = 2.0
SHIFT_TOLERANCE = 0.05
"""Of a noise level: what 0.2 in mu changes in the schedule's middle."""
SMALLEST, LARGEST = 256 * 256, 2_100_000
"""Pixels: FLUX.1 was trained on 0.1 to 2 megapixels."""
MASKED = ("fill", "canny", "depth")
"""Variants that are shown a picture beside the noise."""


class Finding(NamedTuple):
    """Something that is wrong (error), costs quality or time (warning), or is good to know (note)."""

    level: Literal["error", "warning", "note"]
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Prompt:
    """What conditioning tells the model."""

    tokens: int
    width: int
    guidance: float | None = None
    pictured: bool = False
    """Whether it carries Fill's masked picture or a control picture."""
    references: int = 0


def check_prompt(prompt: Prompt, variant: Variant, text_width: int) -> Iterator[Finding]:
    """What is off in a prompt for this `variant`, which reads text states of `text_width`."""
    name = variant.name
    if prompt.width != text_width:
        yield Finding(
            "error",
            f"the prompt's states are {prompt.width} wide, the model reads {text_width}",
            "encode the prompt with T5-XXL and CLIP-L (FLUX.1 Load Text Encoders)",
        )
    guidance = DEFAULT_GUIDANCE if prompt.guidance is None else prompt.guidance
    factor = max(guidance, 1e-3) / variant.guidance if variant.params.guidance_embed else 1.0
    if not 1 / GUIDANCE_FACTOR < factor < GUIDANCE_FACTOR:
        told = "none is given, ComfyUI takes " if prompt.guidance is None else ""
        yield Finding(
            "warning",
            f"guidance: {told}{guidance:g}, {name} is made for {variant.guidance:g}",
            f"connect the model to FLUX.1 Text Encode, or set {variant.guidance:g} in FluxGuidance",
        )
    beyond = prompt.tokens - variant.text_tokens
    if beyond and not (beyond > 0 and beyond % REDUX_TOKENS == 0):
        yield Finding(
            "note",
            f"the prompt has {prompt.tokens} T5 tokens, {name} is run with {variant.text_tokens}: padding counts, "
            "so the picture will differ from its authors'",
            "FLUX.1 Text Encode with the model connected takes the model's own length",
        )
    if name in MASKED and not prompt.pictured:
        node = "FLUX.1 Fill Conditioning" if name == "fill" else "FLUX.1 Control Conditioning"
        yield Finding("warning", f"{name} is shown no picture: it paints as if there were none", f"add {node}")
    if name == "kontext" and not prompt.references:
        yield Finding(
            "note", "Kontext has no reference: it paints from the words alone", "add FLUX.1 Kontext Reference"
        )


def check_latent(shape: tuple[int, ...], size: tuple[int, int]) -> Iterator[Finding]:
    """What is off in a latent `(b, channels, h, w)` of a picture of `size` (width, height) in pixels."""
    if shape[1] != LATENT_CHANNELS:
        yield Finding(
            "error", f"the latent has {shape[1]} channels, FLUX.1's has {LATENT_CHANNELS}",
            "take FLUX.1 Empty Latent, or encode the picture with FLUX.1's ae",
        )  # fmt: skip
    pixels = size[0] * size[1]
    if not SMALLEST <= pixels <= LARGEST:
        yield Finding(
            "note", f"{size[0]} x {size[1]} is {'below' if pixels < SMALLEST else 'beyond'} what FLUX.1 was trained on",
            "paint at about one megapixel" + (", then refine with FLUX.1 Tiled Sampler" if pixels > LARGEST else ""),
        )  # fmt: skip


def check_sigmas(sigmas: Tensor, variant: Variant, size: tuple[int, int]) -> Iterator[Finding]:
    """What is off in a schedule `(steps + 1,)` for a picture of `size` (width, height) in pixels.

    The shift is judged where the whole schedule is there, from 1 to 0.
    """
    steps, whole = len(sigmas) - 1, len(sigmas) > 1 and bool(sigmas[0] > 0.999 and sigmas[-1] == 0)
    if steps > MANY * variant.steps or (whole and steps < FEW * variant.steps):
        yield Finding(
            "warning" if steps < variant.steps else "note",
            f"{steps} steps, {variant.name} is run with {variant.steps}",
            f"set steps to {variant.steps}"
            + (f", or to {FEW * variant.steps:.0f} to save time" if variant.shifted else ""),
        )
    if not whole or steps < 2:
        return
    mu = schedule.shift_for(tokens_of(size)) if variant.shifted else None
    apart = (sigmas.cpu().float() - schedule.sigmas(steps, mu)).abs().max().item()
    if apart > SHIFT_TOLERANCE:
        wanted = f"shifted for {size[0]} x {size[1]} (mu {mu:.2f})" if variant.shifted else "not shifted at all"
        yield Finding(
            "warning",
            f"the noise levels are up to {apart:.2f} off: {variant.name}'s should be {wanted}",
            "take FLUX.1 Scheduler with the latent and the model connected",
        )
