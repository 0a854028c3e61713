"""One seeded set of weights at FLUX.1's real width, written once and read by all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flux_core.model import Transformer
from flux_core.variants import DEV, FluxParams

NOISE = 10_000_019  # a prime, so that no two layers are cut alike


def shallow(double: int = 1, single: int = 2) -> FluxParams:
    """FLUX.1-dev, but with so many blocks."""
    return replace(DEV, depth=double, depth_single_blocks=single)


def seeded(params: FluxParams, dtype: torch.dtype = torch.bfloat16) -> Iterator[tuple[str, Tensor]]:
    """Weights in the released files' names, cut from one stretch of noise: billions are too slow to draw.

    Matrices keep the scale of their inputs; norms are about 1.
    """
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0))
    for number, (name, shape) in enumerate(shapes(params).items()):
        cut = noise.roll(-7919 * number).repeat(-(-shape.numel() // NOISE))[: shape.numel()].view(shape)
        scaled = cut * shape[-1] ** -0.5 if len(shape) == 2 else 1 + 0.1 * cut if name.endswith("scale") else 0.1 * cut
        yield name, scaled.to(dtype)


def shapes(params: FluxParams) -> dict[str, torch.Size]:
    """Of all tensors of a released file."""
    with torch.device("meta"):
        weights = Transformer(params).state_dict()
    return {name.replace("_norm.weight", "_norm.scale"): tensor.shape for name, tensor in weights.items()}


def write(path: Path, params: FluxParams) -> Path:
    """A safetensors file, tensor by tensor: a whole model would not fit into memory beside itself."""
    header, end = {}, 0
    for name, shape in shapes(params).items():
        start, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in seeded(params):
            file.write(tensor.view(torch.uint8).numpy().data)
    return path
