"""Real T5 and CLIP token numbers, padded as FLUX's text encoders get them."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

CLIP_LENGTH = 77


def comfyui() -> Path:
    """The checkout whose `comfy` folder carries both tokenizers."""
    path = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (path / "comfy" / "sd1_tokenizer").is_dir():
        raise FileNotFoundError(
            f"no ComfyUI at {path or 'COMFYUI_PATH'}: set COMFYUI_PATH to a checkout; its tokenizers are needed"
        )
    return path


@cache
def tokenizers() -> tuple[Any, Any]:
    """T5's and CLIP's."""
    root = comfyui() / "comfy"
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
