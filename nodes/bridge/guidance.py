"""Guidance by the step: a wrapper around the transformer that exchanges the number it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...flux_core.schedule import along


def with_guidance(model: Any, values: Sequence[float]) -> Any:
    """A clone of MODEL whose guidance follows `values`, spread over the run's noise levels."""

    def wrapper(
        executor: Callable, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, guidance: Tensor | None,
        ref_latents: Any, control: Any, options: dict[str, Any], **rest: Any,
    ) -> Tensor:  # fmt: skip
        value = along(values, options["sample_sigmas"], options["sigmas"])
        told = torch.full((len(x),), value, dtype=x.dtype, device=x.device)
        return executor(x, timestep, context, y, told, ref_latents, control, options, **rest)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "flux1_guidance", wrapper)
    return clone
