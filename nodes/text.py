"""Prompts: T5 at the length the model was made for, CLIP beside it, guidance with both."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core.errors import Flux1Error
from . import bridge
from .files import verdict

BY_MODEL, AS_COMFYUI = "by model", "as ComfyUI"


class Flux1TextEncode(io.ComfyNode):
    """Encodes a prompt for FLUX.1. With the model connected, guidance and prompt length are what its authors use; text
    that is longer than that is cut, and the node says where."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux1TextEncode",
            display_name="FLUX.1 Text Encode",
            category="FLUX.1/conditioning",
            description=getdoc(cls),
            search_aliases=["flux", "prompt", "clip text encode", "flux guidance", "t5"],
            inputs=[
                io.Clip.Input("clip", tooltip="FLUX.1's text encoders."),
                text_input("prompt", tooltip="What to paint, or what to change."),
                io.Float.Input(
                    "guidance",
                    default=3.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt: dev 3.5, Kontext 2.5, Fill and Canny 30, Depth 10. "
                    "schnell has none. Used where no model is connected, or guidance_by_model is off.",
                ),
                io.Model.Input("model", optional=True, tooltip="Brings its own defaults for guidance and length."),
                io.Boolean.Input(
                    "guidance_by_model",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Take the connected model's guidance instead of the number.",
                ),
                text_input(
                    "clip_prompt",
                    display_name="CLIP prompt (optional)",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Another text for CLIP, which sets the overall mood. Empty: the same prompt.",
                ),
                io.Combo.Input(
                    "t5_length",
                    options=[BY_MODEL, "128", "256", "512", AS_COMFYUI],
                    default=BY_MODEL,
                    optional=True,
                    advanced=True,
                    tooltip="Text tokens the model sees. by model: 512 for dev and Kontext, 256 for schnell, 128 for "
                    "Fill; 512 with no model connected. as ComfyUI: at least 256, and all of the text.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The encoded prompt.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: Any = "", clip_prompt: Any = "") -> bool | str:
        return verdict(check_texts, prompt, clip_prompt)

    @classmethod
    def execute(
        cls,
        clip: Any,
        prompt: str,
        guidance: float,
        model: Any = None,
        guidance_by_model: bool = True,
        clip_prompt: str = "",
        t5_length: str = BY_MODEL,
    ) -> io.NodeOutput:
        check_texts(prompt, clip_prompt)
        variant = bridge.variant_of(model) if model is not None else None
        if variant and guidance_by_model:
            guidance = variant.guidance
        if t5_length == BY_MODEL:
            length = variant.text_tokens if variant else 512
        else:
            length = None if t5_length == AS_COMFYUI else int(t5_length)
        tokens, report = bridge.tokenize(clip, prompt, clip_prompt or prompt, length)
        conditioning = clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": guidance})
        return io.NodeOutput(conditioning, ui=bridge.said(cls, f"{report}, guidance {guidance:g}"))


def text_input(name: str, **settings: Any) -> io.MultiType.Input:
    """A STRING with a second type that nothing has: else ComfyUI makes text of whatever comes, None too, unseen."""
    widget = io.String.Input(name, multiline=True, dynamic_prompts=True, **settings)
    return io.MultiType.Input(widget, [io.Custom("FLUX1_TEXT")], advanced=settings.get("advanced"))


def check_texts(*texts: object) -> None:
    """Raises Flux1Error for a prompt that is no text."""
    for text in texts:
        if not isinstance(text, str):
            raise Flux1Error(
                "The prompt is not a text",
                expected="a string",
                found=f"{type(text).__name__}, {text!r:.100}",
                fix='give it as text; in a /prompt: "prompt": "a lake"',
            )


NODES = [Flux1TextEncode]
