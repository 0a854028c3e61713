"""What a model file is, read from its header; what is wrong with it, in words; and every layout made the released one."""

from .check import check_tensors, expect_transformer, expect_vae, text_encoder_slots
from .convert import to_bfl
from .fp8 import dequantize, mark_scales
from .header import Header, TensorInfo, header_digest, parse_header, read_header
from .identify import Checkpoint, header_of, identify, likely_variant
from .sizes import TextSizes

__all__ = [
    "Checkpoint",
    "Header",
    "TensorInfo",
    "TextSizes",
    "check_tensors",
    "dequantize",
    "expect_transformer",
    "expect_vae",
    "header_digest",
    "header_of",
    "identify",
    "likely_variant",
    "mark_scales",
    "parse_header",
    "read_header",
    "text_encoder_slots",
    "to_bfl",
]
