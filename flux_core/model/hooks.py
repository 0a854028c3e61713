"""What a runtime may hang into the transformer: everything it needs to change goes through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .attention import Stream, attention
from .modulation import Table

if TYPE_CHECKING:
    from .blocks import DoubleStreamBlock, SingleStreamBlock


class Hooks:
    """Hangs in nothing: the plain FLUX.1. A runtime overrides what it wants to change.

    Shapes: img and txt `(b, tokens, hidden)`, ids `(b, tokens, 3)`, vec `(b, hidden)`, pe as `embedding.rotary`
    returns it, mask broadcastable to `(b, heads, tokens, tokens)`.

    table: this step's modulations, when they are known before.
    """

    def __init__(self, table: Table | None = None):
        self.table = table

    def modulate(self, layer: nn.Module, vec: Tensor) -> Tensor:
        """A modulation layer's output for `vec`, from the table if it was made for this very `vec`."""
        return self.table.of[layer] if self.table is not None and self.table.vec is vec else layer(vec)

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
        needed: slice,
    ) -> Tensor:
        """Run, wrap or replace single block number `index`; `x` is text, then image.

        Returns the like of `x`, or only its tokens in `needed`: of the last block nothing else is looked at.
        """
        return block(x, text_tokens, vec, pe, mask, self, needed)

    def region(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a part of a block that nobody looks into: tensors in, tensors out, the same code for all blocks of a kind.

        A runtime may compile it.
        """
        return function(*arguments)

    def attention(
        self,
        streams: Sequence[Stream],
        pe: Tensor,
        mask: Tensor | None,
        text_tokens: int,
        needed: slice = slice(None),
    ) -> Tensor:
        """Joint attention over text, then image tokens: `(b, needed, heads * head_dim)`, see `attention.attention`."""
        return attention(streams, pe, mask, needed)
