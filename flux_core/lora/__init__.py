"""LoRA files of every trainer, brought to one form: what is added to which rows of which released parameter."""

from .names import Target
from .read import CONTROL_STRENGTH, Lora, expect_lora, is_control, read_lora, width_of

__all__ = ["CONTROL_STRENGTH", "Lora", "Target", "expect_lora", "is_control", "read_lora", "width_of"]
