"""The table of variants: what shapes tell, and where they can't."""

from dataclasses import replace

import pytest
import torch

from flux_core.checkpoint import header_of, identify
from flux_core.model import Transformer
from flux_core.variants import DEV, VARIANTS, FluxParams, variants_like

# What black-forest-labs/flux (July 2025) runs each model with: the defaults of cli.py, cli_fill.py, cli_control.py and
# cli_kontext.py, T5's lengths in util.py. Steps, guidance (schnell's file has no guidance_in), T5 tokens, shifted.
AUTHORS = {
    "schnell": (4, None, 256, False),
    "dev": (50, 3.5, 512, True),
    "fill": (50, 30.0, 128, True),
    "canny": (50, 30.0, 512, True),
    "depth": (50, 10.0, 512, True),
    "kontext": (30, 2.5, 512, True),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_settings_are_those_of_the_model_s_authors(name: str):
    variant = VARIANTS[name]
    guidance = variant.guidance if variant.params.guidance_embed else None
    assert (variant.steps, guidance, variant.text_tokens, variant.shifted) == AUTHORS[name]


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
