"""Checked files to MODEL, CLIP and VAE, by ComfyUI's own rules for devices, dtypes and memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import comfy.cli_args
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...flux_core import checkpoint, processor
from ...flux_core.sanity import check_vae_weights
from ...flux_core.variants import VARIANTS
from . import checks, constants, packed
from .transformer import Flux1Model


def load_model(
    path: str,
    dtype: torch.dtype | None = None,
    variant: str = "auto",
    compute: torch.dtype | None = None,
    pack: bool | None = None,
    compiled: bool = False,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the transformer at `path`, any layout and fp8 kind that `checkpoint` knows.

    `dtype`, in memory: None keeps the file's own. `compute`: None chooses. `pack`: whether a CPU keeps packed copies
    (`packed`); None chooses. `compiled`: by torch.compile, at the first step. The file has been checked before
    (`checkpoint`).
    """
    found = checkpoint.identify(checkpoint.read_header(path))
    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    weights = checkpoint.to_bfl(weights, metadata, found.file)

    config = comfy.model_detection.model_config_from_unet(weights, "")
    params = found.params
    config.unet_config.update(axes_dim=list(params.axes_dim), num_heads=params.num_heads, mlp_ratio=params.mlp_ratio)
    _choose_dtypes(config, weights, dtype, compute)
    if _packs(config, weights, pack):
        config.custom_operations = packed.PackedOperations

    name = found.variant if variant == "auto" else variant
    kind = comfy.model_base.ModelType.FLUX if VARIANTS[name].shifted else comfy.model_base.ModelType.FLOW
    model = Flux1Model(config, kind, VARIANTS[name])
    model.diffusion_model.compiled = compiled
    offload = comfy.model_management.unet_offload_device()
    stock = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = flux1_patcher(stock)(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)
    if not comfy.model_management.is_device_cpu(offload):
        model.to(offload)
    if config.quant_config is None:  # what is of its type already stays mapped from the file, and is never copied
        stored = config.unet_config["dtype"]
        weights = {name: weight.to(stored) for name, weight in weights.items()}
    model.load_model_weights(weights, "", assign=patcher.is_dynamic() or config.quant_config is None)
    patcher.cached_patcher_init = (load_model, (path, dtype, variant, compute, pack, compiled))
    constants.attach(patcher)
    checks.attach(patcher)
    return patcher


@cache
def flux1_patcher(patcher: type) -> type:
    """ComfyUI's patcher class, but for two things.

    Weights are put back and moved off the device in inference mode. ComfyUI loads models in inference mode and unloads
    them, between runs, outside of it. torch can't wrap a quantised weight that was made in the one as a parameter in the
    other: a scaled fp8 model that was unloaded never loads again.

    Where the device has no room for all, modulation layers are the first to stay outside: a run needs them once, before
    its first step.
    """

    class Flux1Patcher(patcher):
        @torch.inference_mode()
        def unpatch_model(self, *args: Any, **kwargs: Any) -> None:
            return super().unpatch_model(*args, **kwargs)

        @torch.inference_mode()
        def partially_unload(self, *args: Any, **kwargs: Any) -> int:
            return super().partially_unload(*args, **kwargs)

        def _load_list(self, for_dynamic: bool = False, **settings: Any) -> list[tuple]:
            """Its first column says when: rising where for_dynamic, else falling, as ComfyUI sorts the two."""
            layers = getattr(self.model.diffusion_model, "modulation_layers", list)()
            once = {module for layer in layers for module in layer.modules()}
            last = 2 if for_dynamic else -1
            rows = super()._load_list(for_dynamic, **settings)
            return [(last, *row[1:]) if row[-2] in once else row for row in rows]

    return Flux1Patcher


def _choose_dtypes(
    config: Any, weights: dict[str, Tensor], dtype: torch.dtype | None, compute: torch.dtype | None
) -> None:
    """Storage and compute dtype: as asked, else by ComfyUI's own rules for this device and these weights.

    But one: on the CPU ComfyUI always computes in float32; where the processor multiplies bfloat16 well, it is taken.
    """
    manage, supported, quantized = comfy.model_management, config.supported_inference_dtypes, config.quant_config
    device, held = manage.get_torch_device(), comfy.utils.weight_dtype(weights)
    if compute is None and computes_in_bf16(device, held):
        compute = torch.bfloat16
    if compute is not None:
        keeps = dtype or (held if held in (torch.float8_e4m3fn, torch.float8_e5m2) and not quantized else compute)
        config.set_inference_dtype(keeps, compute if quantized or keeps != compute else None, device=device)
        return
    stored = dtype or manage.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=list(supported),
        weight_dtype=None if quantized else held,
    )
    cast = manage.unet_manual_cast(None if quantized else stored, device, supported)
    config.set_inference_dtype(stored, cast, device=device)


def computes_in_bf16(device: torch.device, held: torch.dtype | None) -> bool:
    """Whether a CPU computes weights held in this type in bfloat16, where ComfyUI would take float32."""
    on_cpu = comfy.model_management.is_device_cpu(device) and not _told_on_the_command_line()
    return on_cpu and held != torch.float32 and processor.bf16_pays()


def _packs(config: Any, weights: dict[str, Tensor], asked: bool | None) -> bool:
    """Whether copies for the CPU's matrix units are kept: where they are of use, as asked, else where they pay and fit."""
    on_cpu = comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())
    stored, cast = config.unet_config["dtype"], config.manual_cast_dtype
    if not on_cpu or config.quant_config is not None or {stored, cast or stored} != {torch.bfloat16}:
        return False
    return processor.bf16_pays() and packed.affordable(weights) if asked is None else asked


def _told_on_the_command_line() -> bool:
    """Whether ComfyUI was started with a type for diffusion models, such as --fp32-unet."""
    args = comfy.cli_args.args
    return any((args.fp32_unet, args.fp64_unet, args.bf16_unet, args.fp16_unet, args.force_fp32, args.force_fp16))


def load_text_encoders(t5_path: str, clip_path: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """ComfyUI's CLIP for FLUX.1; widths and depths are those of the files."""
    paths = t5_path, clip_path
    t5_sizes, clip_sizes = (checkpoint.identify(checkpoint.read_header(path)).text for path in paths)
    loaded = [comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True) for path in paths]
    t5, clip_l = (comfy.utils.convert_old_quants(sd, "", metadata=metadata)[0] for sd, metadata in loaded)
    clip = comfy.sd.load_text_encoder_state_dicts(
        [t5, clip_l],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.FLUX,
        model_options={"t5xxl_model_config": t5_config(t5_sizes), "model_config": clip_config(clip_sizes)},
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (_text_encoder_patcher, (t5_path, clip_path))
    return clip


def _text_encoder_patcher(t5_path: str, clip_path: str, disable_dynamic: bool = False):
    return load_text_encoders(t5_path, clip_path, disable_dynamic).patcher


def load_vae(path: str, disable_dynamic: bool = False) -> comfy.sd.VAE:
    """ComfyUI's VAE; sizes other than the released ones come from the file's shapes and metadata.

    Raises Flux1Error for weights that are NaN: whoever decodes with them, ComfyUI's own node too, paints black.
    """
    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    check_vae_weights(weights, os.path.basename(path))
    config = vae_config(weights)
    if config is None:
        vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    else:
        vae = comfy.sd.VAE(sd={**weights, **_identity_convolutions(config)}, config={"params": config})
        vae.latent_channels = config["ddconfig"]["z_channels"]
    for module in vae.first_stage_model.modules():
        if isinstance(module, torch.nn.GroupNorm) and "flux1.norm_groups" in (metadata or {}):
            module.num_groups = int(metadata["flux1.norm_groups"])
    vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
    return vae


def _vae_patcher(path: str, disable_dynamic: bool = False):
    return load_vae(path).patcher


def t5_config(sizes: checkpoint.TextSizes) -> dict[str, int]:
    """The T5 encoder's sizes as ComfyUI's config names them."""
    return {
        "d_model": sizes.width,
        "d_kv": sizes.inner // sizes.heads,
        "num_heads": sizes.heads,
        "d_ff": sizes.mlp,
        "num_layers": sizes.layers,
        "vocab_size": sizes.vocabulary,
    }


def clip_config(sizes: checkpoint.TextSizes) -> dict[str, int]:
    """CLIP-L's sizes as ComfyUI's config names them."""
    return {
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": sizes.layers,
    }


def vae_config(weights: dict[str, Tensor]) -> dict[str, Any] | None:
    """ComfyUI's config of an autoencoder whose sizes are not the released ones; None for those, which it knows."""
    width, channels = weights["encoder.conv_in.weight"].shape[0], weights["decoder.conv_in.weight"].shape[1]
    levels = range(_count(weights, "encoder.down"))
    widths = [weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in levels]
    blocks = _count(weights, "encoder.down.0.block")
    if widths == [128, 256, 512, 512] and blocks == 2:
        return None
    ddconfig = {
        "double_z": True, "z_channels": channels, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": width,
        "ch_mult": [level // width for level in widths], "num_res_blocks": blocks, "attn_resolutions": [],
        "dropout": 0.0,
    }  # fmt: skip
    return {"ddconfig": ddconfig, "embed_dim": channels}


def _count(names: Iterable[str], stack: str) -> int:
    """How many numbered modules `stack` ("encoder.down") has among tensor names."""
    return len({match[1] for name in names if (match := re.match(rf"{re.escape(stack)}\.(\d+)\.", name))})


def _identity_convolutions(config: dict[str, Any]) -> dict[str, Tensor]:
    """The 1x1 convolutions that ComfyUI's configurable autoencoder has and FLUX.1's does not."""
    channels = config["embed_dim"]
    return {
        f"{name}.{part}": torch.eye(width)[..., None, None] if part == "weight" else torch.zeros(width)
        for name, width in (("quant_conv", 2 * channels), ("post_quant_conv", channels))
        for part in ("weight", "bias")
    }
