"""Loaders: files checked by their headers, before anything is queued, then loaded as stock MODEL, CLIP and VAE."""

from __future__ import annotations

import os
from inspect import getdoc

import torch
from comfy_api.latest import io

from ..flux_core import checkpoint
from ..flux_core.errors import Flux1Error
from ..flux_core.variants import VARIANTS
from . import bridge
from .files import check_choice, names, path_of, verdict

DTYPES = {
    "default": None,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
VARIANT_CHOICES = ["auto", *VARIANTS]
COMPUTE_DTYPES = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

PACK = {"auto": None, "on": True, "off": False}


class Flux1LoadModel(io.ComfyNode):
    """Loads a FLUX.1 diffusion model: schnell, dev, Krea, Fill, Canny, Depth, Kontext or Lite, in the original or the
    diffusers layout, in 16 bit or any fp8 kind. All other nodes for FLUX models work on it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1LoadModel",
            display_name="FLUX.1 Load Model",
            category="FLUX.1/loaders",
            description=getdoc(cls),
            search_aliases=["flux", "unet loader", "load diffusion model", "kontext", "fill", "schnell", "fp8"],
            inputs=[
                io.Combo.Input(
                    "model_name", options=names("diffusion_models"), tooltip="A file in models/diffusion_models."
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="How the weights are kept in memory. default keeps the file's own type; fp8 halves the "
                    "memory of a 16 bit file at some loss. A scaled fp8 file has its type already: leave default.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "variant",
                    options=VARIANT_CHOICES,
                    default="auto",
                    tooltip="auto reads the file's tensors and, for twins (dev, Krea, Kontext; Canny, Depth), its "
                    "name. It sets the defaults for guidance, prompt length and shift.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "compute_dtype",
                    options=list(COMPUTE_DTYPES),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="What it computes in. auto leaves that to ComfyUI, but on a CPU that multiplies bf16 well "
                    "takes bf16: several times faster than fp32, at half the memory.",
                ),
                io.Combo.Input(
                    "pack_weights",
                    options=list(PACK),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="On a CPU that computes in bf16: keep copies of the weights as its matrix units want them. "
                    "Faster by a fifth or more, but 17 GB beside a whole FLUX.1; auto does it where that is at most half "
                    "of the memory.",
                ),
                io.Boolean.Input(
                    "compile_blocks",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="torch.compile of the repeated blocks: the first step takes a minute longer, the others less. "
                    "Once more at the second size; not for further sizes, seeds or prompts.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The diffusion model.")],
        )

    @classmethod
    def validate_inputs(
        cls, model_name: str | None = None, weight_dtype: str | None = None, variant: str | None = None
    ) -> bool | str:
        return verdict(checked_model, model_name, weight_dtype, variant)

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **settings: str) -> tuple:
        return stamp("diffusion_models", model_name)

    @classmethod
    def execute(
        cls,
        model_name: str,
        weight_dtype: str,
        variant: str,
        compute_dtype: str = "auto",
        pack_weights: str = "auto",
        compile_blocks: bool = False,
    ) -> io.NodeOutput:
        path = checked_model(model_name, weight_dtype, variant)
        model = bridge.load_model(
            path, DTYPES[weight_dtype], variant, COMPUTE_DTYPES[compute_dtype], PACK[pack_weights], compile_blocks
        )
        return io.NodeOutput(model)


class Flux1LoadTextEncoders(io.ComfyNode):
    """Loads FLUX.1's two text encoders, T5-XXL and CLIP-L, in either order: the files' tensors tell which is which."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = names("text_encoders")
        t5, clip = (next((file for file in files if kind in file.lower()), None) for kind in ("t5", "clip_l"))
        return io.Schema(
            node_id="Flux1LoadTextEncoders",
            display_name="FLUX.1 Load Text Encoders",
            category="FLUX.1/loaders",
            description=getdoc(cls),
            search_aliases=["flux", "dual clip loader", "t5xxl", "clip_l", "text encoder"],
            inputs=[
                io.Combo.Input("t5_name", options=files, default=t5, tooltip="T5-XXL, e.g. t5xxl_fp16."),
                io.Combo.Input("clip_name", options=files, default=clip, tooltip="CLIP-L, clip_l."),
            ],
            outputs=[io.Clip.Output(tooltip="Both text encoders.")],
        )

    @classmethod
    def validate_inputs(cls, t5_name: str | None = None, clip_name: str | None = None) -> bool | str:
        return verdict(checked_text_encoders, t5_name, clip_name)

    @classmethod
    def fingerprint_inputs(cls, t5_name: str | None = None, clip_name: str | None = None) -> tuple:
        return stamp("text_encoders", t5_name), stamp("text_encoders", clip_name)

    @classmethod
    def execute(cls, t5_name: str, clip_name: str) -> io.NodeOutput:
        return io.NodeOutput(bridge.load_text_encoders(*checked_text_encoders(t5_name, clip_name)))


class Flux1LoadVAE(io.ComfyNode):
    """Loads FLUX.1's autoencoder (ae), which turns pictures into 16-channel latents and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1LoadVAE",
            display_name="FLUX.1 Load VAE",
            category="FLUX.1/loaders",
            description=getdoc(cls),
            search_aliases=["flux", "ae", "vae loader", "autoencoder"],
            inputs=[io.Combo.Input("vae_name", options=names("vae"), tooltip="A file in models/vae, e.g. ae.")],
            outputs=[io.Vae.Output(tooltip="The autoencoder.")],
        )

    @classmethod
    def validate_inputs(cls, vae_name: str | None = None) -> bool | str:
        return verdict(checked_vae, vae_name)

    @classmethod
    def fingerprint_inputs(cls, vae_name: str | None = None) -> tuple:
        return stamp("vae", vae_name)

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        return io.NodeOutput(bridge.load_vae(checked_vae(vae_name)))


def checked_model(name: str, weight_dtype: str = "default", variant: str = "auto") -> str:
    """The path of a diffusion model whose header promises a whole FLUX.1 transformer that can be loaded as asked.

    Raises Flux1Error.
    """
    check_choice("weight_dtype", weight_dtype, DTYPES)
    check_choice("variant", variant, VARIANT_CHOICES)
    path = path_of("diffusion_models", name)
    found = checkpoint.expect_transformer(checkpoint.read_header(path), None if variant == "auto" else variant)
    if weight_dtype != "default" and found.fp8 not in (None, "a"):
        raise Flux1Error(
            "This weight_dtype can't be used with this file",
            file=os.path.basename(path),
            expected="default for a scaled fp8 file",
            found=weight_dtype,
            fix="set weight_dtype to default",
        )
    return path


def checked_text_encoders(t5_name: str, clip_name: str) -> tuple[str, str]:
    """Paths of T5 and CLIP-L, in this order whatever the order of the names. Raises Flux1Error."""
    first, second = (path_of("text_encoders", name) for name in (t5_name, clip_name))
    headers = checkpoint.read_header(first), checkpoint.read_header(second)
    t5, _ = checkpoint.text_encoder_slots(*headers)
    return (first, second) if t5.header is headers[0] else (second, first)


def checked_vae(name: str) -> str:
    """The path of a file that holds FLUX.1's autoencoder. Raises Flux1Error."""
    path = path_of("vae", name)
    checkpoint.expect_vae(checkpoint.read_header(path))
    return path


def stamp(folder: str, name: str | None) -> tuple[str | None, int, int, str]:
    """Changes when the file is replaced on disk; never raises, as ComfyUI's cache asks for it first."""
    try:
        path = path_of(folder, name)
        status = os.stat(path)
        return name, status.st_size, status.st_mtime_ns, checkpoint.header_digest(path)
    except (Flux1Error, OSError):
        return name, 0, 0, ""


NODES = [Flux1LoadModel, Flux1LoadTextEncoders, Flux1LoadVAE]
