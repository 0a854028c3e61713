"""LoRA as ComfyUI's own patches, so that its loading, offloading and unloading, in fp8 too, stay in charge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.utils
import torch
from comfy.model_patcher import LowVramPatch
from comfy.patcher_extension import CallbacksMP
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase

from ...flux_core import checkpoint, lora
from ...flux_core.errors import Flux1Error
from ...flux_core.variants import VARIANTS, FluxParams
from .sampling import VARIANT, variant_of
from .transformer import params_of

MODEL = "diffusion_model."
IMG_IN = MODEL + "img_in.weight"


def load_lora(path: str, model: Any) -> lora.Lora:
    """The LoRA at `path`, read for this MODEL as it is by now. Raises Flux1Error if it is for another one."""
    state_dict, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    file = checkpoint.read_header(path).file
    return lora.read_lora(state_dict, _params(model), metadata, file)


def add_lora(model: Any, found: lora.Lora, strength: float) -> Any:
    """A clone of the MODEL with the LoRA's patches added; the MODEL itself at strength 0."""
    if strength == 0:
        return model
    keys = {
        label: (MODEL + target.parameter, target.narrow, comfy.utils.swap_scale_shift if target.swapped else None)
        for label, target in found.targets.items()
    }
    patches = comfy.lora.load_lora(dict(found.tensors), keys)
    clone = model.clone()
    added = clone.add_patches(patches, strength)
    if len(added) < len(keys):
        raise Flux1Error(
            "The model has no weights of its own for this LoRA",
            file=found.file,
            expected=f"{len(keys)} weights and biases of FLUX.1's transformer",
            found=f"{len(added)} of them, in a {type(model.model).__name__}",
            fix="load the model with Flux1LoadModel, and the LoRA before nodes that replace or compile the model",
        )
    if found.widened:
        clone.add_callback_with_key(CallbacksMP.ON_LOAD, "flux1_widen", _widen_at_once)
    if found.is_control and (variant := checkpoint.likely_variant(_params(clone), found.file)):
        clone.set_attachments(VARIANT, VARIANTS[variant])
    return clone


def _widen_at_once(patcher: Any, *how_loaded: Any) -> None:
    """Where memory is short, ComfyUI patches a weight only while it is in use. img_in has to show its new width before."""
    img_in = patcher.model.diffusion_model.img_in
    if any(isinstance(function, LowVramPatch) for function in img_in.weight_function):
        img_in.weight_function = [f for f in img_in.weight_function if not isinstance(f, LowVramPatch)]
        patcher.patch_weight_to_device(IMG_IN)


def add_text_lora(clip: Any, found: lora.Lora, strength: float) -> tuple[Any, set[str]]:
    """A clone of the CLIP with the LoRA's patches for text encoders, and the keys that are in them.

    Raises Flux1Error when one of them doesn't fit its layer, which ComfyUI would leave out with a line in its log.
    """
    keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    patches = comfy.lora.load_lora(dict(found.text), keys, log_missing=False)
    adapters = {name: patch for name, patch in patches.items() if isinstance(patch, WeightAdapterBase)}
    weights = clip.patcher.model_state_dict()
    for name, adapter in adapters.items():
        _check_text_shape(name, adapter, weights[name].shape, found.file)
    if strength != 0 and adapters:
        clip = clip.clone()
        clip.add_patches(adapters, strength)
    return clip, set().union(*(adapter.loaded_keys for adapter in adapters.values())) & found.text.keys()


def _check_text_shape(name: str, adapter: WeightAdapterBase, expected: torch.Size, file: str) -> None:
    if not isinstance(adapter, LoRAAdapter):
        return
    up, down = adapter.weights[:2]
    if (up.shape[0], down.shape[1]) != expected:
        raise Flux1Error(
            f"The LoRA doesn't fit the text encoders: {name}",
            file=file,
            expected=f"a change of shape {list(expected)}",
            found=f"shape {list(up.shape)} and {list(down.shape)}, together {[up.shape[0], down.shape[1]]}",
            fix="leave clip unconnected, or choose a LoRA made for FLUX.1's text encoders",
        )


def _params(model: Any) -> FluxParams:
    """Sizes of the MODEL's transformer with the patches it has: a control LoRA among them has widened img_in."""
    variant_of(model)  # refuses what is no FLUX.1
    params = params_of(model.model.model_config.unet_config)
    # Not the weight itself: that may be patched at the moment, on behalf of another clone.
    as_loaded = torch.empty(params.hidden_size, params.in_channels, device="meta")
    shape = comfy.lora.calculate_shape(model.patches.get(IMG_IN, []), as_loaded, IMG_IN)
    return replace(params, in_channels=shape[1])
