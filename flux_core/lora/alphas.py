"""Alphas in the header's metadata, where diffusers keeps PEFT's configuration if that is not the default."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..checkpoint.header import quoted, read_json
from ..errors import Flux1Error

METADATA = "lora_adapter_metadata"


class Alphas:
    """What a change without an alpha of its own is scaled by. Raises Flux1Error for malformed metadata."""

    def __init__(self, metadata: Mapping[str, str], file: str):
        try:
            config = read_json(metadata.get(METADATA, "{}"))
            own = {name.removeprefix("transformer."): value for name, value in config.items()}
            self.alpha = float(own["lora_alpha"]) if "lora_alpha" in own else None
            self.patterns = {name: float(value) for name, value in (own.get("alpha_pattern") or {}).items()}
            self.by_root = bool(own.get("use_rslora"))
        except (ValueError, TypeError, AttributeError):
            raise Flux1Error(
                f"The LoRA's metadata {METADATA} is malformed",
                file=file,
                expected="PEFT's configuration as JSON",
                found=quoted(metadata[METADATA]),
                fix="get the file again from its source",
            ) from None

    def of(self, layer: str, rank: int) -> float | None:
        """The alpha of a layer, to be divided by the rank; rsLoRA (arXiv 2312.03732) divides by the rank's root."""
        if self.alpha is None:
            return None
        alpha = next((a for name, a in self.patterns.items() if f".{layer}".endswith(f".{name}")), self.alpha)
        return alpha * math.sqrt(rank) if self.by_root else alpha
