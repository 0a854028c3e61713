"""Adaptive layer norm: what noise level, guidance and pooled text do to every block, and a table of it for a whole run.

The modulation layers hold 27 % of FLUX.1's parameters and see nothing but `vec`. Their outputs for one `vec` are a row of
about a million numbers; with the rows of a schedule at hand, sampling needs those layers no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Modulation(NamedTuple):
    """One adaptive layer norm's three vectors, `(b, 1, hidden)` each."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def modulate(self, normed: Tensor) -> Tensor:
        return torch.addcmul(self.shift, normed, 1 + self.scale)

    def gated(self, x: Tensor, change: Tensor) -> Tensor:
        """x + gate * change"""
        return torch.addcmul(x, self.gate, change)


class ModulationLayer(nn.Module):
    """vec `(b, hidden)` to all vectors of a stream's sub-layers, `(b, 3 * sublayers * hidden)`."""

    def __init__(self, dim: int, sublayers: int, operations: Any, **factory: Any):
        super().__init__()
        self.lin = operations.Linear(dim, 3 * sublayers * dim, bias=True, **factory)

    def forward(self, vec: Tensor) -> Tensor:
        return self.lin(nn.functional.silu(vec))


def modulations(vectors: Tensor, sublayers: int) -> list[Modulation]:
    """A modulation layer's output, taken apart: two sub-layers in a double block's stream, one in a single block."""
    parts = vectors[:, None, :].chunk(3 * sublayers, dim=-1)
    return [Modulation(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


@dataclass(frozen=True)
class Row:
    """What one noise level, guidance and pooled text make of every modulation layer: vec `(1, hidden)` and the layers'
    outputs in a row, `(1, sum of their widths)`."""

    vec: Tensor
    vectors: Tensor


class Table:
    """The rows for one step's batch; gives the layers' outputs instead of the layers themselves."""

    def __init__(self, layers: Sequence[nn.Module], widths: Sequence[int], rows: Sequence[Row]):
        self.vec = rows[0].vec if len(rows) == 1 else torch.cat([row.vec for row in rows])
        vectors = rows[0].vectors if len(rows) == 1 else torch.cat([row.vectors for row in rows])
        self.of = dict(zip(layers, vectors.split(list(widths), dim=1), strict=True))


def rows_for(layers: Sequence[nn.Module], vecs: Sequence[Tensor]) -> list[Row]:
    """Each vec `(1, hidden)` through every layer, alone: the product of one row is the same bits in whatever run.

    Layer by layer, so that weights that have to be fetched are fetched once.
    """
    outputs = [[layer(vec) for vec in vecs] for layer in layers]
    return [Row(vec, torch.cat(of_vec, dim=1)) for vec, of_vec in zip(vecs, zip(*outputs, strict=True), strict=True)]
