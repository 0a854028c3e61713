"""The FLUX.1 family as one table: what each model's file looks like and what it wants to be run with."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class FluxParams:
    """Sizes of one transformer. The defaults are FLUX.1-dev's, as released by Black Forest Labs."""

    in_channels: int = 64
    """Channels of one packed image token (2x2 latent cells of 16 channels, plus what a variant adds)."""
    out_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    mlp_ratio: float = 4.0
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    axes_dim: tuple[int, ...] = (16, 56, 56)
    """Width of each RoPE axis: image index, row, column. Their sum is the head's width."""
    theta: int = 10_000
    qkv_bias: bool = True
    guidance_embed: bool = True


@dataclass(frozen=True)
class Variant:
    """One member of the family: its sizes and the settings its authors run it with."""

    name: str
    params: FluxParams
    steps: int
    guidance: float
    shifted: bool = True
    """Whether the schedule is shifted by the picture's size."""
    text_tokens: int = 512
    """T5 length its authors use."""


DEV = FluxParams()

# Steps, guidance and T5 length: the defaults of black-forest-labs/flux (July 2025), per model.
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("schnell", replace(DEV, guidance_embed=False), steps=4, guidance=0.0, shifted=False, text_tokens=256),
        Variant("dev", DEV, steps=50, guidance=3.5),
        Variant("krea", DEV, steps=50, guidance=4.5),
        Variant("fill", replace(DEV, in_channels=384), steps=50, guidance=30.0, text_tokens=128),
        Variant("canny", replace(DEV, in_channels=128), steps=50, guidance=30.0),
        Variant("depth", replace(DEV, in_channels=128), steps=50, guidance=10.0),
        Variant("kontext", DEV, steps=30, guidance=2.5),
        Variant("lite", replace(DEV, depth=8), steps=50, guidance=3.5),  # 8 in Freepik's release: counted in the file
    )
}


def variants_like(params: FluxParams) -> list[str]:
    """The variants a file with these `params` can be: those that take the same tokens and the same guidance.

    Twins stay twins (canny and depth, dev, krea and kontext): no shape tells them apart. Fewer double blocks than
    dev's in proportion to its single blocks (19 to 38) are Lite's mark.
    """
    if params.depth * DEV.depth_single_blocks < params.depth_single_blocks * DEV.depth and params.in_channels == 64:
        return ["lite"]
    return [
        name
        for name, variant in VARIANTS.items()
        if name != "lite"
        and variant.params.in_channels == params.in_channels
        and variant.params.guidance_embed == params.guidance_embed
    ]
