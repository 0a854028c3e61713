"""The table of variants: what shapes tell, and where they can't."""

from dataclasses import replace

import torch

from flux_core.checkpoint import header_of, identify
from flux_core.model import Transformer
from flux_core.variants import DEV, VARIANTS, FluxParams, variants_like


def test_sizes_are_read_back_from_shapes():
    for params in [variant.params for variant in VARIANTS.values()] + [
        FluxParams(hidden_size=64, num_heads=2, axes_dim=(4, 14, 14), mlp_ratio=3.0, depth=2, depth_single_blocks=5)
    ]:
        with torch.device("meta"):
            weights = Transformer(params).state_dict()
        assert identify(header_of(weights)).params == params


def test_metadata_overrides_what_shapes_cannot_tell():
    with torch.device("meta"):
        weights = Transformer(DEV).state_dict()
    metadata = {"flux1.axes_dim": "[32, 48, 48]", "flux1.mlp_ratio": "4"}
    assert identify(header_of(weights, metadata)).params.axes_dim == (32, 48, 48)


def test_shapes_single_out_schnell_fill_and_lite_and_leave_twins():
    like = {name: variants_like(variant.params) for name, variant in VARIANTS.items()}
    assert like["schnell"] == ["schnell"] and like["fill"] == ["fill"] and like["lite"] == ["lite"]
    assert like["canny"] == like["depth"] == ["canny", "depth"]
    assert like["dev"] == like["krea"] == like["kontext"] == ["dev", "krea", "kontext"]


def test_a_small_model_of_dev_s_proportions_is_no_lite():
    assert variants_like(replace(DEV, depth=3, depth_single_blocks=6)) == ["dev", "krea", "kontext"]
