"""What conditioning and latents carry between our nodes, beside what ComfyUI's own keys say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import node_helpers
from torch import Tensor

from ...flux_core.image import size_of

NEEDS_CHANNELS = "flux1_needs_channels"
"""Conditioning key: packed input channels the model must have for this conditioning to mean anything."""

FILL_CHANNELS, CONTROL_CHANNELS = 384, 128

REFERENCES = "reference_latents"
"""ComfyUI's conditioning key."""
REFERENCE_WEIGHTS = "flux1_reference_weights"
"""Conditioning key: how much each reference counts, beside ComfyUI's list of them; where it ends, 1."""

TRUE_SIZE = "flux1_true_size"
"""Latent key: two sizes (width, height) in pixels, of the picture inside, from its top left, and of it with padding."""


def with_values(conditioning: list, values: dict[str, Any], append: bool = False) -> list:
    """New conditioning with `values` set, or appended to the lists already there."""
    return node_helpers.conditioning_set_values(conditioning, values, append=append)


def with_references(conditioning: list, latents: Sequence[Tensor], placement: str, weights: Sequence[float]) -> list:
    """New conditioning with the references `(b, 16, h, w)` after those already there, and what each of them weighs.

    A weight of 0 leaves a reference out.
    """
    shown = [(latent, weight) for latent, weight in zip(latents, weights, strict=True) if weight > 0]
    if not shown:
        return conditioning
    with_them = []
    for states, values in conditioning:
        before, weighed = values.get(REFERENCES, []), values.get(REFERENCE_WEIGHTS, [])
        own = [*weighed, *[1.0] * (len(before) - len(weighed)), *(weight for _, weight in shown)]
        added = {REFERENCES: [*before, *(latent for latent, _ in shown)], "reference_latents_method": placement}
        added |= {} if all(weight == 1 for weight in own) else {REFERENCE_WEIGHTS: own}
        with_them.append([states, {**values, **added}])
    return with_them


def true_size(size: tuple[int, int], padded: Tensor) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """The latent entry that remembers the (width, height) of a picture inside the `padded` one that was encoded."""
    return {TRUE_SIZE: (size, size_of(padded))}


def cut_to_true_size(image: Tensor, latent: dict[str, Any]) -> Tensor:
    """The decoded picture without padding; whole if the latent remembers no size, or was scaled since."""
    (width, height), padded = latent.get(TRUE_SIZE, (size_of(image), None))
    return image[:, :height, :width] if size_of(image) == padded else image
