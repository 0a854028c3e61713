"""What conditioning and latents carry between our nodes, beside what ComfyUI's own keys say."""

from __future__ import annotations

from typing import Any

import node_helpers
from torch import Tensor

NEEDS_CHANNELS = "flux1_needs_channels"
"""Conditioning key: packed input channels the model must have for this conditioning to mean anything."""

TRUE_SIZE = "flux1_true_size"
"""Latent key: (width, height) in pixels of the picture inside, from its top left; the rest is padding."""


def with_values(conditioning: list, values: dict[str, Any], append: bool = False) -> list:
    """New conditioning with `values` set, or appended to the lists already there."""
    return node_helpers.conditioning_set_values(conditioning, values, append=append)


def true_size(size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The latent entry that remembers a picture's (width, height)."""
    return {TRUE_SIZE: size}


def cut_to_true_size(image: Tensor, latent: dict[str, Any]) -> Tensor:
    """The decoded picture without padding; whole if the latent remembers no size, or was scaled since."""
    width, height = latent.get(TRUE_SIZE, (image.shape[2], image.shape[1]))
    padded = [-(-side // 16) * 16 for side in (height, width)]
    return image[:, :height, :width] if list(image.shape[1:3]) == padded else image
