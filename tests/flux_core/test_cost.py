"""Counted FLOPs are those that torch counts, and the known ones of FLUX.1."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from flux_core import packing
from flux_core.cost import slowdown, step_flops
from flux_core.model import Transformer
from flux_core.model.attention import joined
from flux_core.variants import DEV
from tests.flux_core.test_transformer import Whole


class Counted(Whole):
    """Attention as the two products that torch's counter knows."""

    def attention(self, streams, pe, mask, text_tokens, needed=slice(None)):
        q, k, v = joined(streams, needed)
        return rearrange(q @ k.transpose(-1, -2) @ v, "b h n d -> b n (h d)")


@pytest.mark.parametrize("references", [0, 2])
def test_torch_counts_the_same_in_the_whole_model(references: int):
    """But for the modulations, whose layers are taken from a table here, and the embedding of the noise level."""
    params = replace(
        DEV, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3, context_in_dim=32, vec_in_dim=32
    )
    model, ids = Transformer(params), packing.image_ids(16, 16)
    tokens, pooled, t = torch.randn(1, 256, 64), torch.randn(1, 32), torch.ones(1)
    prepared = model.prepare(ids, torch.randn(1, 100, 32), pooled, t, references=[(tokens, ids)] * references)
    hooks = Counted(model.table(model.rows([(t, pooled, t)])))
    with FlopCounterMode(display=False) as counter:
        model.step(tokens, t, prepared, hooks)
    assert step_flops(256, 100, 256 * references, params) == counter.get_total_flops()


def test_the_known_figures():
    """74.4 TFLOP at 1024 x 1024, 165.5 with a reference of that size, 418 at 2048 x 2048."""
    assert step_flops(4096) == pytest.approx(74.4e12, rel=0.01)
    assert step_flops(4096, reference_tokens=4096) == pytest.approx(165.5e12, rel=0.01)
    assert step_flops(16384) == pytest.approx(418e12, rel=0.01)
    assert slowdown(4096, 4096) == pytest.approx(2.2, abs=0.05)
    assert slowdown(4096, packing.token_count(64, 64)) == pytest.approx(1.29, abs=0.02)
