"""Prompts to tokens through ComfyUI's tokenizers, T5's at a length of our choosing."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy.text_encoders.flux import FluxTokenizer
from torch import Tensor

from ...flux_core.errors import Flux1Error

MAX_TOKENS = 4096
"""Of T5, padding not counted. A cut prompt this long is a mistake, an uncut one asks for gigabytes of attention."""

END = 1
"""T5's end-of-text token."""

CHARACTERS_PER_TOKEN = 64
"""More than any T5 token is long: what bounds a text before time is spent on tokenizing it."""


def tokenize(clip: Any, prompt: str, clip_prompt: str, length: int | None) -> tuple[dict[str, list], str]:
    """Tokens of both encoders, and a line about them: how long the text is, and what was cut.

    T5's are padded or cut to `length`; None leaves them as ComfyUI makes them: padded to at least 256, never cut.

    Raises Flux1Error when the text has more than MAX_TOKENS tokens, or the encoders are another model's.
    """
    check_encoders(clip)
    if (longest := max(len(prompt), len(clip_prompt))) > MAX_TOKENS * CHARACTERS_PER_TOKEN:
        raise _too_long(f"{longest} characters")
    clip = clip.clone()
    t5 = clip.tokenizer.t5xxl
    used = len(t5.tokenize_with_weights(prompt, tokenizer_options={"t5xxl_min_length": 0})[0])
    if used > MAX_TOKENS:
        raise _too_long(f"{used} tokens")
    if length is not None:
        clip.set_tokenizer_option("t5xxl_min_length", length)
    tokens = {**clip.tokenize(clip_prompt), "t5xxl": clip.tokenize(prompt)["t5xxl"]}
    if length is None or used <= length:
        return tokens, f"{used} of {len(tokens['t5xxl'][0])} T5 tokens"
    whole = tokens["t5xxl"][0]
    kept, cut = whole[: length - 1], whole[length - 1 : used - 1]
    tokens["t5xxl"] = [[*kept, (END, 1.0)]]
    lost = t5.tokenizer.decode([token for token, _ in cut if isinstance(token, int)])
    report = f"{used} T5 tokens, only {length} fit: cut off from “{lost}”"
    logging.warning("FLUX.1 Text Encode: %s", report)  # inside a subgraph the editor shows no node's text
    return tokens, report


class ClipAlone:
    """FLUX.1's two text encoders when only CLIP is asked: zeros stand where T5's states would."""

    def __init__(self, both: Any):
        self.both = both

    def set_clip_options(self, options: dict[str, Any]) -> None:
        self.both.set_clip_options(options)

    def reset_clip_options(self) -> None:
        self.both.reset_clip_options()

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[Tensor, Tensor]:
        """States `(1, T5 tokens, width)`, all zero, and CLIP's pooled vector `(1, width)`."""
        _, pooled = self.both.clip_l.encode_token_weights(tokens["l"])
        width = self.both.t5xxl.transformer.shared.weight.shape[1]
        return torch.zeros(1, len(tokens["t5xxl"][0]), width, device=pooled.device), pooled


def without_t5(clip: Any, tokens: dict[str, list]) -> tuple[Any, str]:
    """A clone of the CLIP that encodes without T5, and a line about what it sees of `tokens`."""
    clone = clip.clone()
    clone.cond_stage_model = ClipAlone(clip.cond_stage_model)
    cut = ", which holds only the first 77 of its tokens" if len(tokens["l"]) > 1 else ""
    return clone, f"CLIP alone{cut}; {len(tokens['t5xxl'][0])} zeros for T5"


def check_encoders(clip: Any) -> None:
    """Raises Flux1Error for text encoders other than FLUX.1's pair, with what theirs would give."""
    if clip is not None and isinstance(clip.tokenizer, FluxTokenizer):
        return
    found = "none: the file has no text encoder"
    if clip is not None:
        width = clip.encode_from_tokens(clip.tokenize("")).shape[-1]
        found = f"{type(clip.tokenizer).__name__.removesuffix('Tokenizer')}, whose states are {width} wide"
    raise Flux1Error(
        "These are not FLUX.1's text encoders",
        expected="T5-XXL, whose states are 4096 wide, with CLIP-L",
        found=found,
        fix="load t5xxl and clip_l with Flux1LoadTextEncoders",
    )


def _too_long(found: str) -> Flux1Error:
    return Flux1Error(
        "The prompt is too long",
        expected=f"at most {MAX_TOKENS} T5 tokens",
        found=found,
        fix="shorten it; FLUX.1 reads 512 tokens at most (schnell 256)",
    )
