"""Redux: pictures as further text tokens, and how much they count beside the prompt.

black-forest-labs/flux appends a picture's 729 SigLIP tokens, projected to T5's width, to the prompt's 512, which they
easily drown. Two ways to balance them, those of ComfyUI's StyleModelApply: scale the tokens, or add log(strength) to
the attention they get, as if each of them were there `strength` times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import Flux1Error

MULTIPLY, ATTENTION = "multiply", "attn_bias"
STRENGTH_TYPES = (MULTIPLY, ATTENTION)

BIAS = torch.float16
"""As in ComfyUI: over all tokens the bias is large, and log(strength) small."""
HIDDEN = torch.finfo(BIAS).min
"""The bias of what nobody sees; minus infinity would become NaN where ComfyUI interpolates it to the picture's size."""


@dataclass(frozen=True)
class Text:
    """What the transformer reads as text: the prompt, then pictures."""

    tokens: Tensor
    """`(b, n, width)`."""
    bias: Tensor | None = None
    """`(b, n + cells, n + cells)`, added to the attention logits, row by row of who sees whom: text tokens, then the
    cells that stand for the painted picture's tokens, often one for all. None: zeros."""

    def with_picture(self, picture: Tensor) -> Text:
        """`picture` `(1, m, width)` after the tokens that are there, seen by all and seeing all.

        Raises Flux1Error when its tokens have another width.
        """
        if picture.shape[-1] != self.tokens.shape[-1]:
            raise Flux1Error(
                "The text conditioning doesn't fit the style model",
                expected=f"T5 states of width {picture.shape[-1]}",
                found=f"width {self.tokens.shape[-1]}",
                fix="encode the prompt with FLUX.1's own text encoders (Flux1LoadTextEncoders), and load "
                "flux1-redux-dev.safetensors as style model",
            )
        tokens = torch.cat([self.tokens, picture.to(self.tokens).expand(len(self.tokens), -1, -1)], dim=1)
        return Text(tokens, self.bias if self.bias is None else self._with_unbiased(picture.shape[1]))

    def _with_unbiased(self, count: int) -> Tensor:
        """The bias with room for `count` tokens after the text."""
        end, size = self.tokens.shape[1], self.bias.shape[-1] + count
        before = torch.cat([torch.arange(end), torch.arange(end + count, size)])
        bias = self.bias.new_zeros(len(self.bias), size, size)
        bias[:, before[:, None], before] = self.bias
        return bias

    def weighed(self, start: int, stop: int, strength: float, strength_type: str) -> Text:
        """Tokens `start` to `stop` scaled by `strength`, or by all others attended to `strength` times as much."""
        if strength == 1:
            return self
        if strength_type == MULTIPLY:
            tokens = self.tokens.clone()
            tokens[:, start:stop] *= strength
            return replace(self, tokens=tokens)
        batch, count, _ = self.tokens.shape
        empty = torch.zeros(batch, count + 1, count + 1, dtype=BIAS, device=self.tokens.device)
        bias = empty if self.bias is None else self.bias.clone()
        for others in (slice(0, start), slice(stop, None)):
            bias[:, others, start:stop] += torch.tensor(strength).log().to(bias.device)
        return replace(self, bias=bias.clamp(min=HIDDEN))


def with_pictures(
    prompt: Text,
    pictures: Sequence[Tensor],
    strengths: Sequence[float],
    strength_type: str = MULTIPLY,
    prompt_strength: float = 1.0,
) -> Text:
    """The prompt and after it each picture `(1, m, width)` with its strength, as if one node for each stood in a row."""
    text, prompt_tokens = prompt, prompt.tokens.shape[1]
    for picture, strength in zip(pictures, strengths, strict=True):
        start, text = text.tokens.shape[1], text.with_picture(picture)
        text = text.weighed(start, text.tokens.shape[1], strength, strength_type)
    return text.weighed(0, prompt_tokens, prompt_strength, strength_type)


def as_bias(mask: Tensor, batch: int) -> Tensor:
    """An attention mask `(n, n)` or `(b, n, n)`, True or a bias where one token sees another, as bias `(b, n, n)`."""
    bias = mask.to(BIAS).log() if mask.dtype == torch.bool else mask.to(BIAS)
    return bias.clamp(min=HIDDEN).expand(batch, -1, -1)


def over_references(mask: Tensor, text_tokens: int, reference_tokens: int) -> Tensor:
    """A mask `(b, n, n)` over text and picture, made one over text, picture and then reference tokens.

    References belong to the whole picture: they see, and are seen by, whatever any of its tokens sees or is seen by.
    """
    for dim in (-2, -1):
        whole_picture = mask.narrow(dim, text_tokens, mask.shape[dim] - text_tokens).amax(dim, keepdim=True)
        mask = torch.cat([mask, whole_picture.repeat_interleave(reference_tokens, dim)], dim)
    return mask
