"""What a picture takes of memory and time: weights counted in the header, FLOPs by the architecture, speed measured."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ..checkpoint import Checkpoint
from ..checkpoint.layers import layers
from ..cost import step_flops
from ..processor import bf16_pays, flops_per_second
from ..variants import VARIANTS
from .files import ModelFile

PIXELS_PER_TOKEN = 16  # along a side
REFERENCE_TOKENS = 4096
"""Of one Kontext reference: its sizes are all of about a megapixel."""
WORKING_WIDTHS = 42
"""Numbers that lie in memory while sampling, for each token and unit of the model's width: what ComfyUI 0.30.0 reckons
with for FLUX.1 (0.031 MB a latent cell and byte of a number)."""
DECODING_NUMBERS = 2178
"""The same for each pixel that the VAE decodes, by ComfyUI 0.30.0's reckoning."""


@dataclass(frozen=True)
class Device:
    """What it is computed on."""

    name: str
    dtype: torch.dtype
    """That diffusion models are computed in."""
    flops: float
    """A second, of a matrix product in that dtype, measured."""
    memory: int | None = None
    """Bytes in all, None where nothing tells."""


@dataclass(frozen=True)
class Estimate:
    """What one model takes for one picture."""

    file: str
    steps: int
    """As its authors run it."""
    weights: int
    """Bytes that each step reads."""
    modulation: int
    """Bytes of the layers that are needed before the first step only."""
    working: int
    """Bytes beside the weights while sampling."""
    flops: float
    """Of a step."""
    step_seconds: float
    references: int = 0

    @property
    def memory(self) -> int:
        return self.weights + self.working

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds


@dataclass(frozen=True)
class Beside:
    """Bytes that are needed before and after sampling, each by itself."""

    text_encoders: int
    vae: int
    decoding: int


def estimate(file: ModelFile, size: tuple[int, int], device: Device) -> Estimate:
    """What this transformer takes for a picture of `size` (width, height) in pixels; Kontext with one reference."""
    found, variant = file.checkpoint, VARIANTS[file.role]
    references = int(file.role == "kontext")
    tokens = [tokens_of(size), variant.text_tokens, references * REFERENCE_TOKENS]
    flops = step_flops(*tokens, found.params)
    weights, modulation = weights_of(found, device.dtype)
    working = sum(tokens) * WORKING_WIDTHS * found.params.hidden_size * device.dtype.itemsize
    return Estimate(
        file.name, variant.steps, weights, modulation, working, flops, flops / device.flops, references
    )  # fmt: skip


def beside(t5: ModelFile, clip_l: ModelFile, vae: ModelFile, size: tuple[int, int], device: Device) -> Beside:
    """The text encoders' and the VAE's bytes, as their files hold them, and what decoding a picture of `size` takes."""
    decoding = size[0] * size[1] * DECODING_NUMBERS * device.dtype.itemsize
    return Beside(t5.bytes + clip_l.bytes, vae.bytes, decoding)


def tokens_of(size: tuple[int, int]) -> int:
    """Tokens of a picture of (width, height) pixels."""
    width, height = size
    return -(-width // PIXELS_PER_TOKEN) * -(-height // PIXELS_PER_TOKEN)


def weights_of(found: Checkpoint, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes in memory of a transformer that is computed in `dtype`: of what each step reads, and of modulation layers.

    The file's own bytes, but where it is computed in float32: ComfyUI then keeps all but scaled fp8 in that, too.
    """
    once = tuple(
        f"{found.prefix}{name}."
        for layer in layers(found.params)
        if layer.is_modulation
        for name in ([layer.name] if found.layout == "bfl" else layer.sources)
    )
    widened = dtype == torch.float32 and found.fp8 in (None, "a")
    total = modulation = 0
    for name, info in found.header.tensors.items():
        if name.startswith(found.prefix):
            size = info.parameters * dtype.itemsize if widened else info.bytes
            total, modulation = total + size, modulation + size * name.startswith(once)
    return total - modulation, modulation


def device_here() -> Device:
    """The GPU that torch finds, else the processor; its speed is measured, which takes some milliseconds."""
    if torch.cuda.is_available():
        device = torch.device("cuda")
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        name, memory = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[1]
    else:
        device, name = torch.device("cpu"), "this CPU"
        dtype = torch.bfloat16 if bf16_pays() else torch.float32
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return Device(name, dtype, flops_per_second(device, dtype), memory)
