"""Redux: who sees whom how much, token by token."""

import math

import pytest
import torch

from flux_core.errors import Flux1Error
from flux_core.redux import ATTENTION, MULTIPLY, Text, as_bias, over_references, with_pictures

PROMPT, FIRST, SECOND, CELLS, REFERENCES = 5, 3, 4, 6, 2


def text(batch: int = 2) -> Text:
    return Text(torch.randn(batch, PROMPT, 8))


def pictures() -> list[torch.Tensor]:
    return [torch.randn(1, FIRST, 8), torch.randn(1, SECOND, 8)]


def test_tokens_are_the_prompt_s_then_the_pictures_scaled():
    prompt, (first, second) = text(), pictures()
    given = prompt.tokens.clone(), first.clone()
    tokens = with_pictures(prompt, [first, second], [0.5, 2.0], MULTIPLY, prompt_strength=3.0).tokens
    for one in range(2):
        assert torch.equal(tokens[one], torch.cat([prompt.tokens[one] * 3, first[0] * 0.5, second[0] * 2]))
    assert torch.equal(prompt.tokens, given[0]) and torch.equal(first, given[1])


def test_every_token_but_its_own_sees_a_picture_by_the_logarithm_of_its_strength():
    """Also reference tokens, which come after those of the painted picture. A later picture sees an earlier one whole,
    as when ComfyUI's node is used twice."""
    biased = with_pictures(text(), pictures(), [0.5, 0.25], ATTENTION, prompt_strength=2.0)
    n = biased.tokens.shape[1]
    over_picture = biased.bias.repeat_interleave(torch.tensor([1] * n + [CELLS]), 1)
    over_picture = over_picture.repeat_interleave(torch.tensor([1] * n + [CELLS]), 2)
    whole = over_references(over_picture, n, REFERENCES)
    kinds = ["prompt"] * PROMPT + ["first"] * FIRST + ["second"] * SECOND + ["painted"] * CELLS + ["ref"] * REFERENCES
    strength = {"prompt": 2.0, "first": 0.5, "second": 0.25}
    expected = torch.tensor(
        [
            [
                0.0 if who == whom or (who, whom) == ("second", "first") else math.log(strength.get(whom, 1.0))
                for whom in kinds
            ]
            for who in kinds
        ]
    )
    assert whole.shape == (2, len(kinds), len(kinds))
    assert torch.allclose(whole.float(), expected.expand_as(whole), atol=1e-3)


def test_references_see_what_any_part_of_the_picture_sees():
    """One word for the left half, one for the right; what neither half sees, no reference sees."""
    sees = torch.ones(1, 5, 5, dtype=torch.bool)  # three words, two cells
    sees[0, 3, :3] = torch.tensor([True, False, False])
    sees[0, 4, :3] = torch.tensor([False, True, False])
    whole = over_references(as_bias(sees, 1), 3, 2)
    assert torch.equal(whole[0, :5, :5], as_bias(sees, 1)[0])
    for reference in (5, 6):
        assert (whole[0, reference].exp() > 0).tolist() == [True, True, False, True, True, True, True]


def test_without_need_there_is_no_bias():
    assert with_pictures(text(), pictures(), [1.0, 1.0], ATTENTION).bias is None
    assert with_pictures(text(), pictures(), [0.5, 0.5], MULTIPLY).bias is None


@pytest.mark.parametrize("strength", [0.0, 1e-9])
def test_a_bias_is_finite(strength):
    """Minus infinity times zero, where ComfyUI interpolates the bias, is NaN."""
    prompt = text()
    for _ in range(2):
        prompt = with_pictures(prompt, pictures(), [strength, strength], ATTENTION, prompt_strength=strength)
    assert prompt.bias.isfinite().all()
    assert as_bias(torch.zeros(1, 4, 4, dtype=torch.bool), 1).isfinite().all()


def test_text_of_another_width_is_refused():
    with pytest.raises(Flux1Error, match=r"width 16.*width 8"):
        with_pictures(text(), [torch.randn(1, FIRST, 16)], [1.0])
