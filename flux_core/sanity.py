"""Numbers that can't become a picture: refused before a run, and found in it at next to no cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .checkpoint.check import LATENT_CHANNELS
from .errors import Flux1Error

HIGHEST_LEVEL = 2.0
"""FLUX.1's noise levels end at 1. Nodes that multiply a schedule go a little beyond; those of other models begin at 14."""


def check_levels(sigmas: Tensor) -> None:
    """Raise Flux1Error for a schedule `(steps + 1,)` that no picture comes of."""
    found = _odd_levels(sigmas)
    if found:
        raise Flux1Error(
            "The noise levels (sigmas) don't make a schedule",
            expected="finite levels between 0 and 1, not all the same",
            found=found,
            fix="take the schedule from Flux1Scheduler, or give max_shift and base_shift of ModelSamplingFlux their "
            "defaults, 1.15 and 0.5: a strong shift lifts every level to 1",
        )


def _odd_levels(sigmas: Tensor) -> str:
    levels = sigmas[:-1]
    if not sigmas.isfinite().all():
        return f"{(~sigmas.isfinite()).sum()} of {len(sigmas)} levels NaN or infinite"
    if sigmas.min() < 0 or sigmas.max() > HIGHEST_LEVEL:
        return f"levels from {sigmas.min():.4g} to {sigmas.max():.4g}"
    if len(levels) > 1 and (levels == levels[0]).all():
        return f"the level {levels[0]:.4g} for all {len(levels)} steps"
    return ""


def check_latent(latent: Tensor) -> None:
    """Raise Flux1Error for a latent that is not `(b, 16, h, w)`, or not finite."""
    if latent.ndim != 4 or latent.shape[1] != LATENT_CHANNELS:
        channels = f"{latent.shape[1]} channels" if latent.ndim == 4 else f"a latent of shape {list(latent.shape)}"
        raise Flux1Error(
            "The latent is not FLUX.1's",
            expected=f"{LATENT_CHANNELS} channels",
            found=channels,
            fix="encode the picture with FLUX.1's ae.safetensors (Flux1LoadVAE), or start from Flux1EmptyLatent",
        )
    check_finite(
        latent,
        "The latent to start from has NaN or infinite values (non-finite)",
        "encode the picture again; if that does not help, the VAE's file may be damaged: get ae.safetensors again",
    )


def check_conditioning(name: str, values: Tensor) -> None:
    """Raise Flux1Error where a tensor of a conditioning has NaN. Infinity is let through: masks say no with it."""
    if values.isnan().any():
        raise Flux1Error(
            f"The conditioning has NaN (non-finite values): {name}",
            expected="finite values",
            found=f"{values.isnan().sum()} NaN of {values.numel()}",
            fix="a text encoder's file, the VAE's or a picture may be damaged: get the files again",
        )


def check_vae_weights(weights: Mapping[str, Tensor], file: str) -> None:
    """Raise Flux1Error for the first of a VAE's weights that has NaN or infinite values."""
    for name, weight in weights.items():
        check_finite(
            weight.float(),  # float8 can't tell
            f"The VAE's file is damaged, it has NaN or infinite weights (non-finite): {name}",
            "get ae.safetensors again",
            file,
        )


def check_finite(values: Tensor, problem: str, fix: str, file: str | None = None) -> None:
    """Raise Flux1Error where a value is NaN or infinite."""
    finite = values.isfinite()
    if not finite.all():
        raise Flux1Error(
            problem,
            file=file,
            expected="finite values",
            found=f"{(~finite).sum()} NaN or infinite of {values.numel()}",
            fix=fix,
        )


class Steps:
    """Watches a run: names the first step whose result is NaN or infinite.

    Each step leaves one bit on the device. They are read after steps 1, 2, 4, 8 and so on and at the end: reading makes
    the device wait, and this way a run that went wrong is stopped before it has taken twice as long.
    """

    def __init__(self) -> None:
        self.finite: list[Tensor] = []

    def see(self, clean: Tensor) -> None:
        """The next step's guess of the clean latent. Raises Flux1Error."""
        self.finite.append(clean.isfinite().all())
        if len(self.finite).bit_count() == 1:
            self.check()

    def check(self) -> None:
        """Raises Flux1Error if a step so far was not finite."""
        finite = torch.stack(self.finite).tolist() if self.finite else []
        if False in finite:
            raise not_finite(f"step {finite.index(False) + 1}")

    def end(self, result: Tensor) -> None:
        """After the last step, with what the sampler gives. Raises Flux1Error."""
        self.check()
        if not result.isfinite().all():
            raise not_finite("the end")


def not_finite(place: str) -> Flux1Error:
    return Flux1Error(
        "The model's result has NaN or infinite values (non-finite)",
        expected="finite latents",
        found=f"NaN or infinity at {place}",
        fix="set weight_dtype and compute_dtype of Flux1LoadModel to default and auto and take LoRAs out; if it stays, "
        "the model's file may be damaged: get it again",
    )
