"""Prompts to tokens through ComfyUI's tokenizers, T5's at a length of our choosing."""

from __future__ import annotations

import logging
from typing import Any

from comfy.text_encoders.flux import FluxTokenizer

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
