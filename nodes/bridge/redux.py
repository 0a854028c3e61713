"""Pictures through ComfyUI's CLIP_VISION and STYLE_MODEL, to the tokens that Redux shows FLUX.1."""

from __future__ import annotations

from typing import Any

from comfy.ldm.flux.redux import ReduxImageEncoder
from torch import Tensor

from ...flux_core.errors import Flux1Error

SIGLIP = "sigclip_vision_patch14_384.safetensors"


def picture_tokens(picture: Any, style_model: Any, clip_vision: Any, crop: bool) -> Tensor:
    """`(1, tokens, width)` of a CLIP_VISION_OUTPUT, or of an IMAGE, which `clip_vision` encodes; 729 for each picture.

    `crop` takes the middle square of an IMAGE, else all of it is squashed to a square.

    Raises Flux1Error where one of the models is missing or is not Redux's.
    """
    redux = style_model.model
    if not isinstance(redux, ReduxImageEncoder):
        raise Flux1Error(
            "The style model is not Redux", expected="flux1-redux-dev", found=type(redux).__name__,
            fix="load flux1-redux-dev.safetensors with StyleModelLoader",
        )  # fmt: skip
    if isinstance(picture, Tensor):
        if clip_vision is None:
            raise Flux1Error(
                "Pictures need an image encoder",
                expected="clip_vision connected, or pictures encoded by CLIPVisionEncode",
                found="a picture and no clip_vision",
                fix=f"load {SIGLIP} with CLIPVisionLoader and connect it to clip_vision",
            )
        picture = clip_vision.encode_image(picture, crop=crop)
    width = picture.last_hidden_state.shape[-1]
    if width != redux.redux_dim:
        raise Flux1Error(
            "The image encoder is not Redux's",
            expected=f"SigLIP so400m, {redux.redux_dim} channels",
            found=f"{width} channels",
            fix=f"load {SIGLIP} with CLIPVisionLoader",
        )
    return style_model.get_cond(picture).flatten(0, 1)[None]
