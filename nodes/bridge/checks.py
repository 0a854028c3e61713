"""Checks around every run of a MODEL, by whatever sampler: before the model is loaded, after its steps, at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...flux_core import sanity
from ...flux_core.errors import Flux1Error
from .transformer import Flux1Model
from .values import REFERENCE_WEIGHTS

KEY = "flux1_checks"


def checked_run(
    executor: Callable[..., Tensor],
    noise: Tensor,
    latent: Tensor,
    sampler: Any,
    sigmas: Tensor,
    mask: Tensor | None = None,
    callback: Callable[..., None] | None = None,
    *rest: Any,
    **settings: Any,
) -> Tensor:
    """Wraps a guider's sampling. Raises Flux1Error for what would end in a black or senseless picture."""
    sanity.check_levels(sigmas)
    sanity.check_latent(latent)
    if not isinstance(executor.class_obj.model_patcher.model, Flux1Model):
        check_unweighed(executor.class_obj.conds)
    for name, values in tensors_of(executor.class_obj.conds):
        sanity.check_conditioning(name, values)
    steps = sanity.Steps()

    def on_step(step: int, clean: Tensor, *more: Any) -> None:
        steps.see(clean)
        if callback is not None:
            callback(step, clean, *more)

    result = executor(noise, latent, sampler, sigmas, mask, on_step, *rest, **settings)
    steps.end(result)
    return result


def check_unweighed(conds: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Raises Flux1Error where references have weights, for a MODEL that knows of none."""
    if any(REFERENCE_WEIGHTS in cond for several in conds.values() for cond in several):
        raise Flux1Error(
            "This MODEL can't weigh references",
            expected="a MODEL of Flux1LoadModel",
            found="one of another loader, and weights in Flux1KontextReference",
            fix="load it with Flux1LoadModel, or leave the weights empty",
        )


def tensors_of(conds: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[tuple[str, Tensor]]:
    """All tensors in a guider's conditionings, each with the name it goes by there."""
    for cond in (cond for several in conds.values() for cond in several):
        for name, value in cond.items():
            for part in value if isinstance(value, list | tuple) else (value,):
                if isinstance(part, Tensor):
                    yield name, part


def attach(patcher: Any) -> None:
    """Every run of this MODEL, or a clone of it, is checked."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, checked_run)


def checked(model: Any) -> Any:
    """The MODEL if its runs are checked already, else a clone of it whose are."""
    if model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        return model
    clone = model.clone()
    attach(clone)
    return clone
