"""What a runtime may hang into the transformer: everything it needs to change goes through here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .attention import attention

if TYPE_CHECKING:
    from .blocks import DoubleStreamBlock, SingleStreamBlock


class Hooks:
    """Hangs in nothing: the plain FLUX.1. A runtime overrides what it wants to change.

    Shapes: img and txt `(b, tokens, hidden)`, ids `(b, tokens, 3)`, vec `(b, hidden)`, pe as `embedding.rotary`
    returns it, mask broadcastable to `(b, heads, tokens, tokens)`; q, k, v `(b, heads, tokens, head_dim)`.
    """

    def enter(
        self, img: Tensor, txt: Tensor, img_ids: Tensor, txt_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See or change tokens and positions before the first block."""
        return img, txt, img_ids, txt_ids

    def double_block(
        self,
        index: int,
        block: DoubleStreamBlock,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        pe: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run, wrap or replace double block number `index`; returns (img, txt)."""
        return block(img, txt, vec, pe, mask, self)

    def single_block(
        self,
        index: int,
        block: SingleStreamBlock,
        x: Tensor,
        text_tokens: int,
        vec: Tensor,
        pe: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Run, wrap or replace single block number `index`; `x` is text, then image, and so is what it returns."""
        return block(x, text_tokens, vec, pe, mask, self)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None, text_tokens: int) -> Tensor:
        """Joint attention over text, then image tokens: `(b, tokens, heads * head_dim)`."""
        return attention(q, k, v, pe, mask)
