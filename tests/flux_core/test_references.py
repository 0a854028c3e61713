"""References' weights in a transformer, and their sizes within a budget."""

import pytest
import torch

from flux_core import packing
from flux_core.image import scaled, size_of
from flux_core.model import Transformer
from flux_core.references import scale_within, tokens_of, weighed
from flux_core.variants import FluxParams

PARAMS = FluxParams(vec_in_dim=16, context_in_dim=32, hidden_size=64, num_heads=2, depth=2, depth_single_blocks=2,
                    axes_dim=(8, 12, 12))  # fmt: skip
TEXT, GRID = 7, (4, 6)


@pytest.fixture(scope="module")
def velocity():
    """Of one transformer with random weights, for references (tokens, positions), weights and a mask."""
    torch.manual_seed(0)
    model = Transformer(PARAMS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    img, txt, pooled = torch.randn(1, 24, 64), torch.randn(1, TEXT, 32), torch.randn(1, 16)

    @torch.inference_mode()
    def run(references, weights=(), mask=None):
        counts = [tokens.shape[1] for tokens, _ in references]
        mask = weighed(mask, weights, counts, TEXT + 24, img)
        ids, one = packing.image_ids(*GRID), torch.ones(1)
        return model(img, ids, txt, 0.7 * one, pooled, 2.5 * one, references=references, mask=mask)

    return run


def reference(seed: int, rows: int = 3, columns: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(1, rows * columns, 64), packing.image_ids(rows, columns, index=seed)


def test_a_reference_of_weight_two_is_that_reference_twice(velocity):
    one, other = reference(1), reference(2)
    assert torch.allclose(velocity([one, other], [2, 1]), velocity([one, one, other]), atol=1e-5)
    assert not torch.allclose(velocity([one, other], [2, 1]), velocity([one, other]), atol=1e-3)


def test_a_reference_of_weight_zero_is_none(velocity):
    one, other = reference(1), reference(2)
    assert torch.allclose(velocity([one, other], [0, 1]), velocity([other]), atol=1e-5)
    assert torch.allclose(velocity([one], [0]), velocity([]), atol=1e-5)


def test_the_weights_come_on_top_of_a_mask(velocity):
    """A mask that hides the second reference, and a weight for the first."""
    one, other = reference(1), reference(2)
    mask = torch.zeros(1, 61, 61)
    mask[..., 46:] = -1e9
    assert torch.allclose(velocity([one, other], [3], mask), velocity([one, one, one]), atol=1e-5)


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 61, 61)])
def test_weights_of_one_leave_the_mask_as_it_is(mask):
    assert weighed(mask, [1, 1.0], [15, 15], 31, torch.zeros(1)) is mask
    assert weighed(mask, [], [15, 15], 31, torch.zeros(1)) is mask


@pytest.mark.parametrize("size", [(1024, 768), (1392, 752), (64, 48), (16, 2000)])
@pytest.mark.parametrize("budget", [0, 1, 10, 1000, 5000])
def test_a_reference_keeps_to_its_budget_and_comes_close_to_it(size, budget):
    scale = scale_within(size, 1.0, budget)
    width, height = size_of(scaled(torch.zeros(1, size[1], size[0], 3), scale))
    assert tokens_of(size, scale) == (width // 16) * (height // 16)
    if not budget or tokens_of(size) <= budget:
        assert scale == 1
    else:
        assert tokens_of(size, scale) <= budget
        assert tokens_of(size, scale) > 0.8 * budget or min(width, height) < 200
