"""The one bridge to ComfyUI's internals; nodes reach them through here alone."""

from .autoencoder import decode, encode
from .depth import predicted_depth
from .doctor import check_options, device_at_hand, prompts, text_width
from .guidance import with_guidance
from .loading import load_model, load_text_encoders, load_vae
from .lora import add_lora, add_text_lora, load_lora
from .redux import picture_tokens
from .sampling import check_tileable, empty_fixed, euler_sampler, guider, noise_for, sample, tiled_euler, variant_of
from .text import tokenize, without_t5
from .ui import said
from .values import (
    CONTROL_CHANNELS,
    FILL_CHANNELS,
    NEEDS_CHANNELS,
    cut_to_true_size,
    true_size,
    with_references,
    with_values,
)

__all__ = [
    "CONTROL_CHANNELS",
    "FILL_CHANNELS",
    "NEEDS_CHANNELS",
    "add_lora",
    "add_text_lora",
    "check_options",
    "check_tileable",
    "cut_to_true_size",
    "decode",
    "device_at_hand",
    "empty_fixed",
    "encode",
    "euler_sampler",
    "guider",
    "load_lora",
    "load_model",
    "load_text_encoders",
    "load_vae",
    "noise_for",
    "picture_tokens",
    "predicted_depth",
    "prompts",
    "said",
    "sample",
    "text_width",
    "tiled_euler",
    "tokenize",
    "true_size",
    "variant_of",
    "with_guidance",
    "with_references",
    "with_values",
    "without_t5",
]
