"""Depth as FLUX.1 Depth was trained on: what depth-anything says of a picture, made a picture; near is bright.

Depths are `(b, rows, columns)` as the network gives them: relative, larger is nearer, at its own resolution.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .checkpoint import read_header
from .errors import Flux1Error

MODELS: dict[str, str] = {
    repository.split("/")[1]: f"https://huggingface.co/{repository}"
    for repository in (
        "LiheYoung/depth-anything-large-hf",  # Black Forest Labs'
        "LiheYoung/depth-anything-base-hf",
        "LiheYoung/depth-anything-small-hf",
        "depth-anything/Depth-Anything-V2-Large-hf",
        "depth-anything/Depth-Anything-V2-Base-hf",
        "depth-anything/Depth-Anything-V2-Small-hf",
    )
}
"""Folder name and public page of each released network, in transformers' layout."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FILES = (CONFIG, "preprocessor_config.json", WEIGHTS)

RELATIVE = "depth_anything of relative depth with a dinov2 backbone"
"""The only kind of network that is read: one of metric depth would paint near things dark."""

MAX_ASPECT = 64
"""Of a picture: the network sees 518 pixels in patches of 14, and a side of less than half a patch vanishes."""

SPECTRAL = torch.tensor(
    # ColorBrewer's, from far to near.
    [(94, 79, 162), (50, 136, 189), (102, 194, 165), (171, 221, 164), (230, 245, 152), (255, 255, 191),
     (254, 224, 139), (253, 174, 97), (244, 109, 67), (213, 62, 79), (158, 1, 66)]
) / 255  # fmt: skip


def check_folder(folder: Path) -> None:
    """See that `folder` holds a depth-anything network of relative depth in transformers' layout, all of it local.

    Raises Flux1Error.
    """
    source = MODELS.get(folder.name, f"the network's public page (the smallest: {list(MODELS.values())[-1]})")
    for name in FILES:
        if not (folder / name).is_file():
            raise Flux1Error(
                "The depth network is not complete",
                file=f"{folder.name}/{name}",
                expected=f"{', '.join(FILES)} in {folder}",
                found=", ".join(sorted(entry.name for entry in folder.iterdir())) or "an empty folder",
                fix=f"download {name} from {source} into this folder",
            )
    read_header(folder / WEIGHTS)
    kind = kind_of(folder / CONFIG)
    if kind != RELATIVE:
        raise Flux1Error(
            "This is no depth network that FLUX.1 Depth can be shown", file=f"{folder.name}/{CONFIG}",
            expected=RELATIVE, found=kind, fix=f"download {CONFIG} from {source}, or choose another network",
        )  # fmt: skip


def kind_of(file: Path) -> str:
    """The network that a config.json describes, in the words of RELATIVE."""
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
        kind, depth = config.get("model_type"), config.get("depth_estimation_type") or "relative"
        backbone = (config.get("backbone_config") or {}).get("model_type")
        # Where a backbone is named instead of described, transformers would fetch it.
        named = any(config.get(key) for key in ("backbone", "use_timm_backbone", "use_pretrained_backbone"))
    except (ValueError, AttributeError):
        return "no JSON object"
    return f"{kind} of {depth} depth with a {backbone} backbone{' from elsewhere' if named else ''}"


def check_size(width: int, height: int) -> None:
    """Raises Flux1Error for a picture so narrow that the network would see nothing of it."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Flux1Error(
            "The picture is too narrow for a depth map", expected=f"sides of at most {MAX_ASPECT} to 1",
            found=f"{width} x {height}", fix="cut or pad the picture first",
        )  # fmt: skip


def at_size(depth: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Depth at (width, height) pixels by bicubic interpolation."""
    return interpolate(depth[:, None], size[::-1], mode="bicubic", align_corners=False, antialias=antialias)[:, 0]


def as_trained(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """In [0, 1] as black-forest-labs/flux shows depth to the autoencoder: raw, depth / 127.5 - 1 in [-1, 1]."""
    return (at_size(depth, size, antialias=True) / 255).clamp(0, 1)


def min_max(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Each picture stretched to all of [0, 1], as transformers' pipeline draws depth. A flat one is black."""
    depth = at_size(depth, size, antialias=False)
    low, high = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
    return (depth - low) / (high - low).clamp(min=torch.finfo(depth.dtype).tiny)


NORMALISATIONS = {"as trained": as_trained, "min-max": min_max}


def coloured(depth: Tensor) -> Tensor:
    """`(b, height, width)` in [0, 1] to colours `(b, height, width, 3)`: near is red, far is blue."""
    position = depth * (len(SPECTRAL) - 1)
    below = position.floor().clamp(0, len(SPECTRAL) - 2).long()
    colours = SPECTRAL.to(depth.device)
    return torch.lerp(colours[below], colours[below + 1], (position - below)[..., None])
