"""Real T5 and CLIP token numbers, padded as FLUX's text encoders get them; ComfyUI carries both tokenizers."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

from workflows.comfyui import find_comfyui

CLIP_LENGTH = 77


@cache
def tokenizers() -> tuple[Any, Any]:
    """T5's and CLIP's."""
    root = find_comfyui() / "comfy"
    return (
        T5TokenizerFast.from_pretrained(root / "text_encoders" / "t5_tokenizer"),
        CLIPTokenizer.from_pretrained(root / "sd1_tokenizer"),
    )


def t5_tokens(texts: Sequence[str], length: int) -> Tensor:
    """(texts, length) numbers, padded with 0 and cut off at `length`."""
    rows = tokenizers()[0](list(texts)).input_ids
    return torch.tensor([(row + [0] * length)[:length] for row in rows])


def clip_tokens(texts: Sequence[str]) -> Tensor:
    """(texts, 77) numbers, padded with the end token."""
    rows = tokenizers()[1](list(texts), truncation=True, max_length=CLIP_LENGTH).input_ids
    return torch.tensor([(row + [49407] * CLIP_LENGTH)[:CLIP_LENGTH] for row in rows])
