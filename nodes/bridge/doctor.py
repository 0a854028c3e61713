"""What ComfyUI runs on, how it was started, and what a MODEL and its conditioning say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.cli_args
import comfy.model_management
import torch

from ...flux_core.doctor import Device, Finding, Prompt
from ...flux_core.processor import bf16_pays, flops_per_second
from .loading import computes_in_bf16
from .transformer import params_of

SLOWER = {  # options of ComfyUI that cost time whatever the machine
    "use_split_cross_attention": "attention in slices is slower than PyTorch's own",
    "use_quad_cross_attention": "sub-quadratic attention is slower than PyTorch's own",
    "force_upcast_attention": "attention is computed in float32",
    "disable_smart_memory": "models leave the device after every run and are loaded again",
    "cache_none": "every node runs anew each time, loaders too",
    "deterministic": "slower algorithms are taken",
}
COARSER = {  # options that cost quality
    "fp16_vae": "FLUX.1's VAE may give black pictures in fp16",
    "fp8_e4m3fn_unet": "16 bit models are rounded to fp8",
    "fp8_e5m2_unet": "16 bit models are rounded to fp8 with 2 bits of mantissa",
}


def device_at_hand() -> Device:
    """Where ComfyUI runs diffusion models, its speed measured in the type that they are computed in."""
    manage = comfy.model_management
    device = manage.get_torch_device()
    dtype = torch.bfloat16
    if not computes_in_bf16(device, held=torch.bfloat16):
        stored = manage.unet_dtype(device, supported_dtypes=[torch.bfloat16, torch.float16, torch.float32])
        dtype = manage.unet_manual_cast(stored, device) or stored
    name = "the CPU" if manage.is_device_cpu(device) else manage.get_torch_device_name(device)
    return Device(name, dtype, flops_per_second(device, dtype), int(manage.get_total_memory(device)))


def check_options(largest: int) -> Iterator[Finding]:
    """Options that ComfyUI was started with and that cost time or quality here; `largest`: bytes of the largest model
    while sampling."""
    args, manage = comfy.cli_args.args, comfy.model_management
    device = manage.get_torch_device()
    on_cpu = manage.is_device_cpu(device)
    given = {name for name, value in vars(args).items() if value is True}
    free = manage.get_free_memory(device)
    reasons = {name: why for name, why in {**SLOWER, **COARSER}.items() if name in given}
    if bf16_pays() if on_cpu else manage.should_use_bf16(device):
        slow = given & {"fp32_unet", "fp64_unet", "force_fp32"}
        reasons |= dict.fromkeys(slow, "twice the memory or more, and half the speed or less: bf16 is fast here")
    if not on_cpu and largest < free:
        tight = given & {"lowvram", "novram"}
        reasons |= dict.fromkeys(tight, f"{free / 1e9:.1f} GB are free: the largest model would fit as a whole")
    if on_cpu and "cpu" in given and torch.cuda.is_available():
        reasons["cpu"] = f"there is a GPU, {torch.cuda.get_device_name()}"
    if not on_cpu and "cpu_vae" in given:
        reasons["cpu_vae"] = "decoding on the CPU takes minutes"
    for name, why in reasons.items():
        yield Finding(
            "warning", f"ComfyUI runs with --{name.replace('_', '-')}: {why}", "start ComfyUI without it"
        )  # fmt: skip


def text_width(model: Any) -> int:
    """How wide the text states are that a MODEL of FLUX.1 reads."""
    return params_of(model.model.model_config.unet_config).context_in_dim


def prompts(conditioning: list) -> Iterator[Prompt]:
    """What each entry of a CONDITIONING tells the model."""
    for states, values in conditioning:
        yield Prompt(
            states.shape[1],
            states.shape[2],
            values.get("guidance"),
            values.get("concat_latent_image") is not None,
            len(values.get("reference_latents") or ()),
        )
