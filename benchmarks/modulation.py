"""What the table of modulations saves: weights that a step touches, counted, and bits that change, compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flux_core import packing
from flux_core.model import Hooks, Transformer
from flux_core.variants import DEV, FluxParams

from .weights import seeded, shallow


def touched(model: Transformer, tabled: bool) -> int:
    """Weights of all layers that a step calls; on the meta device nothing is computed, so the whole model will do."""
    device = model.img_in.weight.device
    seen: set[nn.Parameter] = set()
    hooks = [
        layer.register_forward_pre_hook(lambda layer, _: seen.update(layer.parameters(recurse=False)))
        for layer in model.modules()
    ]
    ids, one = packing.image_ids(32, 32), torch.ones(1)
    to = {"device": device, "dtype": model.img_in.weight.dtype}
    states, pooled = (
        torch.empty(1, 512, model.params.context_in_dim, **to),
        torch.empty(1, model.params.vec_in_dim, **to),
    )
    prepared = model.prepare(ids.to(device), states, pooled, one.to(**to))
    table = model.table(model.rows([(one.to(device), pooled, one.to(**to))])) if tabled else None
    seen.clear()
    model.step(torch.empty(1, 1024, 64, **to), one.to(device), prepared, Hooks(table))
    for hook in hooks:
        hook.remove()
    return sum(weight.nbytes for weight in seen)


def counted(params: FluxParams = DEV) -> dict[str, Any]:
    """Bytes of bfloat16 weights that a step touches, with and without the table."""
    with torch.device("meta"):
        model = Transformer(params, dtype=torch.bfloat16)
    with torch.no_grad():
        without, with_table = touched(model, False), touched(model, True)
    return {"bytes": with_table, "bytes_without": without, "share_saved": 1 - with_table / without}


@torch.inference_mode()
def same_bits(weights: dict[str, torch.Tensor], params: FluxParams, dtype: torch.dtype) -> bool:
    """Whether a step at real width gives the same bits with the table and without."""
    with torch.device("meta"):
        model = Transformer(params)
    model.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 64, 64, generator=generator).to(dtype)
    states = torch.randn(1, 32, params.context_in_dim, generator=generator).to(dtype)
    pooled, guidance = torch.randn(1, params.vec_in_dim, generator=generator).to(dtype), torch.full((1,), 3.5).to(dtype)
    level = torch.full((1,), 0.7)
    prepared = model.prepare(packing.image_ids(8, 8), states, pooled, guidance)
    table = model.table(model.rows([(level, pooled, guidance)]))
    return torch.equal(model.step(tokens, level, prepared), model.step(tokens, level, prepared, Hooks(table)))


def bits() -> dict[str, bool]:
    """The same for both number types."""
    params = shallow(1, 1)
    return {
        f"same_bits_{name}": same_bits(dict(seeded(params)), params, dtype)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
