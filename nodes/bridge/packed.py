"""For CPUs with matrix units: weights laid out once as these want them, which a product otherwise does each time.

At 512 x 512 pixels that is a fifth of a product's time. The copies take as much memory as the bfloat16 weights that a step
reads, 17 GB for a whole FLUX.1 beside its mapped file: so it is for machines with twice that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import comfy.ops
import psutil
import torch
from torch import Tensor

FEWEST_TOKENS = 64
"""Below, reading the weights is all the work, however they lie."""

_weights_in_place: ContextVar[Hashable | None] = ContextVar("weights_in_place", default=None)


@contextmanager
def weights_in_place(which: Hashable | None) -> Iterator[None]:
    """Layers inside use what they packed from these weights; None: they can't be told from others, nothing is packed."""
    token = _weights_in_place.set(which)
    try:
        yield
    finally:
        _weights_in_place.reset(token)


class PackedOperations(comfy.ops.disable_weight_init):
    """ComfyUI's layers for weights that are in their computing dtype, but with linear ones that keep packed copies."""

    class Linear(comfy.ops.disable_weight_init.Linear):
        packed: tuple[Hashable, Tensor] | None = None

        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_compiling():
                return super().forward(x)
            which = _weights_in_place.get()
            changed = self.comfy_cast_weights or self.weight_function or self.bias_function
            bf16 = x.dtype == self.weight.dtype == torch.bfloat16
            if which is None or changed or not bf16 or x.shape[:-1].numel() < FEWEST_TOKENS:
                return super().forward(x)
            if self.packed is None or self.packed[0] != which:
                self.packed = None  # before the next takes as much
                self.packed = which, torch.ops.mkldnn._reorder_linear_weight(self.weight)
            return torch.ops.mkldnn._linear_pointwise(x, self.packed[1], self.bias, "none", [], "")


def affordable(weights: Mapping[str, Tensor]) -> bool:
    """Whether copies of these weights take at most half of this machine's memory: the same answer at every start."""
    return 2 * sum(weight.nbytes for weight in weights.values()) <= psutil.virtual_memory().total
