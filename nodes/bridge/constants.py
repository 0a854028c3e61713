"""What a run computes once: projected text, positions and references for its conditionings, modulations for its steps.

Nothing is taken from memory that could differ: conditionings are compared by content, and a row of modulations belongs to
the weights it came from, its noise level, its guidance and its pooled text. Where weights may change while a run goes on
(hooks on conditionings, injections, replaced modules, training) nothing is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.patcher_extension
import torch
from torch import Tensor

from ...flux_core import mapped
from ...flux_core.model import Prepared, Row, Table, Transformer

PREPARED_KEPT = 8
"""Conditionings in one run, each with its areas' sizes, whose constants are kept; the oldest makes room."""
ROWS_KEPT = 256
"""Rows of modulations kept beyond a run: 0.5 GB at FLUX.1's size, against 6.5 GB of layers."""

Inputs = Sequence[Tensor | None]


class Constants:
    """One transformer's memory."""

    def __init__(self) -> None:
        self.patcher: Any = None
        self.prepared: list[tuple[Hashable, Inputs, Prepared]] = []
        self.rows: dict[Hashable, Row] = {}

    @contextmanager
    def during(self, patcher: Any) -> Iterator[None]:
        """A run of `patcher`: conditionings are forgotten at its end, modulations are not."""
        outer, self.patcher = self.patcher, patcher
        try:
            yield
        finally:
            self.patcher = outer
            self.prepared.clear()

    def weights(self) -> Hashable | None:
        """Which weights are in place, or None when that can't be told."""
        patcher = self.patcher
        if patcher is None or torch.is_grad_enabled() or patcher.current_hooks is not None or patcher.injections:
            return None
        if any(name.startswith("diffusion_model") for name in patcher.object_patches):
            return None
        return patcher.patches_uuid, str(patcher.load_device)

    def prepare(self, inputs: Inputs, sizes: Hashable, make: Callable[[], Prepared]) -> Prepared:
        """What `make` made when it last saw the same `inputs` and `sizes`, else what it makes now."""
        weights = self.weights()
        if weights is None:
            return make()
        for key, seen, prepared in self.prepared:
            if key == (weights, sizes) and all(map(same, seen, inputs)):
                return prepared
        prepared = make()
        self.prepared = [*self.prepared[-PREPARED_KEPT + 1 :], ((weights, sizes), tuple(inputs), prepared)]
        return prepared

    def table(self, model: Transformer, samples: Sequence[Sample]) -> Table:
        """The modulations of one step's batch."""
        if self.weights() is None:
            return model.table(rows_of(model, samples))
        self.foresee(model, samples)
        return model.table([self.rows[self.name(sample)] for sample in samples])

    def foresee(self, model: Transformer, samples: Sequence[Sample]) -> None:
        """Make the rows for these samples, so far as they are not there yet and there is room."""
        if self.weights() is None:
            return
        wanted = {self.name(sample): sample for sample in samples[:ROWS_KEPT]}
        missing = {name: sample for name, sample in wanted.items() if name not in self.rows}
        made = dict(zip(missing, rows_of(model, list(missing.values())), strict=True))
        if made:  # a mapped file's memory, 27 % of the model, is the blocks' from here on
            mapped.release(weight for layer in model.modulation_layers() for weight in layer.parameters())
        newest = {name: self.rows.pop(name) if name in self.rows else made[name] for name in wanted}
        self.rows = dict(list((self.rows | newest).items())[-ROWS_KEPT:])

    def name(self, sample: Sample) -> Hashable:
        return self.weights(), *sample.content()


class Sample(NamedTuple):
    """One picture of a step's batch: noise level `(1,)`, pooled text `(1, width)`, guidance `(1,)`."""

    timestep: Tensor
    pooled: Tensor
    guidance: Tensor | None

    def content(self) -> tuple[Hashable, ...]:
        guidance = None if self.guidance is None else self.guidance.item()
        return self.timestep.item(), guidance, str(self.pooled.dtype), self.pooled.float().cpu().numpy().tobytes()


def samples_of(timesteps: Tensor, pooled: Tensor, guidance: Tensor | None) -> list[Sample]:
    """A batch taken apart; what is there once holds for all."""
    one = [
        [None] * len(timesteps) if part is None else part.expand(len(timesteps), *part.shape[1:]).split(1)
        for part in (timesteps, pooled, guidance)
    ]
    return list(map(Sample, *one))


def rows_of(model: Transformer, samples: Sequence[Sample]) -> list[Row]:
    return model.rows([(sample.timestep, sample.pooled, sample.guidance) for sample in samples])


def same(seen: Tensor | None, given: Tensor | None) -> bool:
    if seen is None or given is None:
        return seen is given
    return seen.shape == given.shape and seen.dtype == given.dtype and torch.equal(seen, given)


def once_per_run(executor: Callable, guider: Any, sigmas: Tensor, *rest: Any, **settings: Any) -> Any:
    """Wraps a sampler: makes the modulations of its whole schedule before the first step."""
    base, patcher = guider.inner_model, guider.model_patcher
    constants: Constants | None = getattr(base.diffusion_model, "constants", None)
    if constants is None:  # another pack has put a transformer of its own in place of ours
        return executor(guider, sigmas, *rest, **settings)
    with constants.during(patcher):
        levels = base.model_sampling.timestep(sigmas[:-1]).float()
        samples = foreseen(conditionings(guider), levels, base.get_dtype_inference())
        constants.foresee(base.diffusion_model, list(samples))
        return executor(guider, sigmas, *rest, **settings)


def conditionings(guider: Any) -> list[dict[str, Any]]:
    """All that a run will ask for: at cfg 1 ComfyUI leaves the negative out."""
    unused = {"negative"} if math.isclose(getattr(guider, "cfg", 0.0), 1.0) else set()
    return [cond for name, some in guider.conds.items() if name not in unused for cond in some or ()]


def foreseen(conds: Sequence[dict[str, Any]], levels: Tensor, dtype: torch.dtype) -> Iterator[Sample]:
    """All noise levels of a run with the pooled text and guidance of each of its conditionings."""
    for cond in (cond for cond in conds if "hooks" not in cond):
        pooled, guidance = (cond["model_conds"].get(name) for name in ("y", "guidance"))
        if pooled is None:
            continue
        for row in pooled.cond.to(levels.device, dtype).split(1):
            told = None if guidance is None else guidance.cond[:1].to(levels.device, dtype)
            for level in levels.split(1):
                yield Sample(level, row, told)


def attach(patcher: Any) -> None:
    """Every sampler that runs this MODEL, or a clone of it, computes its constants once."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "flux1_constants", once_per_run)
