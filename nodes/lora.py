"""LoRAs of every trainer, with a report of what was loaded."""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from comfy_api.latest import io

from ..flux_core import checkpoint
from ..flux_core.errors import Flux1Error
from ..flux_core.lora import CONTROL_STRENGTH, expect_lora
from . import bridge
from .files import names, path_of, verdict
from .loaders import stamp

BY_FILE, CUSTOM = "by file", "custom"


class Flux1LoadLora(io.ComfyNode):
    """Adds a LoRA to a FLUX.1 model: Black Forest Labs' control LoRAs, and those of diffusers, PEFT, ai-toolkit, kohya,
    OneTrainer, LyCORIS (LoHa, LoKr) and XLabs. Says what was loaded and what not; a LoRA of another model is refused.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Float.Input(
            "value", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How strongly to apply it; 0: not at all."
        )
        return io.Schema(
            node_id="Flux1LoadLora",
            display_name="FLUX.1 Load LoRA",
            category="FLUX.1/loaders",
            description=getdoc(cls),
            search_aliases=["flux", "lora", "lora loader", "control lora", "kohya", "peft", "dora", "lokr"],
            inputs=[
                io.Model.Input("model", tooltip="A FLUX.1 model, with other LoRAs or without."),
                io.Combo.Input("lora_name", options=names("loras"), tooltip="A file in models/loras."),
                io.DynamicCombo.Input(
                    "strength",
                    options=[io.DynamicCombo.Option(BY_FILE, []), io.DynamicCombo.Option(CUSTOM, [value])],
                    tooltip=f"by file: {CONTROL_STRENGTH} for control LoRAs, as Black Forest Labs use them, 1 for all "
                    "others.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="For the few LoRAs that change the text encoders too; others ignore it."
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA; the one given keeps without."),
                io.Clip.Output(tooltip="The text encoders, if they were connected."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None, strength: dict[str, Any] | None = None) -> bool | str:
        return verdict(checked_lora, lora_name, (strength or {}).get("strength", ""))

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **settings: Any) -> tuple:
        return stamp("loras", lora_name)

    @classmethod
    def execute(cls, model: Any, lora_name: str, strength: dict[str, Any], clip: Any = None) -> io.NodeOutput:
        found = bridge.load_lora(checked_lora(lora_name, strength["strength"]), model)
        value = strength["value"] if strength["strength"] == CUSTOM else found.preset
        model, in_clip = bridge.add_lora(model, found, value), None
        if clip is not None:
            clip, in_clip = bridge.add_text_lora(clip, found, value)
        return io.NodeOutput(model, clip, ui=bridge.said(cls, found.report(value, in_clip)))


def checked_lora(name: str, strength: str | None) -> str:
    """The path of a file that holds a LoRA for FLUX.1, as far as its header tells. Raises Flux1Error."""
    if strength not in (BY_FILE, CUSTOM):
        raise Flux1Error(
            "There is no such strength",
            expected=f'"{BY_FILE}", or "{CUSTOM}" with the number in strength.value',
            found="another value",
            fix=f'choose {BY_FILE} or {CUSTOM}; in a /prompt: "strength": "{CUSTOM}", "strength.value": 0.8',
        )
    path = path_of("loras", name)
    expect_lora(checkpoint.read_header(path))
    return path


NODES = [Flux1LoadLora]
