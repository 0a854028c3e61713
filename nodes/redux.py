"""Variations of pictures with FLUX.1 Redux: pictures beside, or instead of, the words of a prompt."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core.redux import MULTIPLY, STRENGTH_TYPES, Text, as_bias, with_pictures
from . import bridge
from .files import verdict
from .lists import padded, parsed

STRETCH, CROP = "stretch", "crop"
MASK, MASK_SHAPE = "attention_mask", "attention_mask_img_shape"
"""ComfyUI's conditioning keys: the bias, and how many rows and columns of cells in it stand for the painted picture."""


class Flux1ReduxConditioning(io.ComfyNode):
    """Shows FLUX.1 pictures as if they were words of the prompt, with the Redux style model. Works on dev and schnell,
    and together with Kontext references, Fill and Canny or Depth maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01}
        return io.Schema(
            node_id="Flux1ReduxConditioning",
            display_name="FLUX.1 Redux Conditioning",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "redux", "style model apply", "image variation", "image prompt", "ip adapter"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt; it may be empty."),
                io.Autogrow.Input(
                    "pictures",
                    template=io.Autogrow.TemplatePrefix(
                        io.MultiType.Input(
                            "picture", [io.Image, io.ClipVisionOutput], tooltip="A picture, encoded or not."
                        ),
                        prefix="picture",
                        min=1,
                        max=8,
                    ),
                    tooltip="Pictures, or pictures that CLIPVisionEncode has encoded.",
                ),
                io.StyleModel.Input("style_model", tooltip="flux1-redux-dev, from StyleModelLoader."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="sigclip_vision_patch14_384, from CLIPVisionLoader. Only encoded pictures do without.",
                ),
                io.Float.Input("strength", **strength, tooltip="How much the pictures count."),
                io.Combo.Input(
                    "strength_type",
                    options=list(STRENGTH_TYPES),
                    default=MULTIPLY,
                    tooltip="multiply scales what the pictures say. attn_bias scales how much they are listened to: "
                    "gentler, at more memory.",
                ),
                io.Combo.Input(
                    "sizing",
                    options=[STRETCH, CROP],
                    default=STRETCH,
                    optional=True,
                    advanced=True,
                    tooltip="The encoder sees a square: the whole picture squashed into it, as Black Forest Labs' code "
                    "does, or the picture's middle.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="What strength is multiplied with for each picture in turn: 1, 0.5. Where empty: 1.",
                ),
                io.Float.Input(
                    "prompt_strength",
                    **strength,
                    optional=True,
                    advanced=True,
                    tooltip="How much the prompt counts, by strength_type too.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The prompt with the pictures.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, weights: str = "", pictures: Any = None) -> bool | str:
        # pictures: ComfyUI passes inputs that grow to whoever validates anything, without what is linked to them
        return verdict(parsed, weights)

    @classmethod
    def execute(
        cls,
        conditioning: list,
        style_model: Any,
        pictures: dict[str, Any],
        strength: float,
        strength_type: str,
        clip_vision: Any = None,
        sizing: str = STRETCH,
        weights: str = "",
        prompt_strength: float = 1.0,
    ) -> io.NodeOutput:
        given = [picture for picture in pictures.values() if picture is not None]
        tokens = [bridge.picture_tokens(picture, style_model, clip_vision, sizing == CROP) for picture in given]
        strengths = [strength * weight for weight in padded(parsed(weights), len(tokens))]
        with_tokens = []
        for states, values in conditioning:
            mask, shape = values.get(MASK), values.get(MASK_SHAPE, (1, 1))
            prompt = Text(states, None if mask is None else as_bias(mask, len(states)))
            text = with_pictures(prompt, tokens, strengths, strength_type, prompt_strength)
            masked = {} if text.bias is None else {MASK: text.bias, MASK_SHAPE: shape}
            with_tokens.append([text.tokens, {**values, **masked}])
        report = f"{len(tokens)} picture(s), {' + '.join(str(each.shape[1]) for each in tokens)} tokens"
        return io.NodeOutput(with_tokens, ui=bridge.said(cls, report))


NODES = [Flux1ReduxConditioning]
