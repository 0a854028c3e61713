"""What a step costs: FLOPs counted from the architecture."""

from __future__ import annotations

from .variants import DEV, FluxParams


def step_flops(image_tokens: int, text_tokens: int = 512, reference_tokens: int = 0, params: FluxParams = DEV) -> float:
    """Floating point operations of one step for one picture, a multiplication and an addition counted as two.

    Every token passes all blocks' matrices; attention compares each with each. What is computed once a run (modulations,
    text, references' projection) is left out, and that the last block does less.
    """
    dim, hidden = params.hidden_size, int(params.hidden_size * params.mlp_ratio)
    tokens = image_tokens + text_tokens + reference_tokens
    matrices = dim * (4 * dim + 2 * hidden)  # query, key, value and output, two of the MLP: in both kinds of block
    blocks = params.depth + params.depth_single_blocks
    ends = (params.in_channels + params.out_channels) * dim * image_tokens
    return 2.0 * (blocks * tokens * (matrices + 2 * tokens * dim) + ends)


def slowdown(image_tokens: int, reference_tokens: int, text_tokens: int = 512, params: FluxParams = DEV) -> float:
    """How many times as long a step takes with references as without, by FLOPs."""
    return step_flops(image_tokens, text_tokens, reference_tokens, params) / step_flops(
        image_tokens, text_tokens, 0, params
    )
