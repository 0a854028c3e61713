"""Renders as tensors, made once and kept in runs/."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from painter.scenes import Scene, draw, random_scene
from painter.train.loop import RUNS

TRAINING, HELD_OUT = 1, 2  # first word of a seed: the two never share a picture


def scenes(count: int, part: int = TRAINING) -> list[Scene]:
    rng = np.random.default_rng(part)
    return [random_scene(rng) for _ in range(count)]


def to_tensor(image: np.ndarray) -> Tensor:
    """(h, w, 3) in [0, 1] -> (3, h, w) bytes."""
    return torch.from_numpy((image * 255).round().astype(np.uint8)).permute(2, 0, 1)


def renders(count: int, part: int = TRAINING) -> Tensor:
    """(count, 3, 128, 128) bytes."""
    path: Path = RUNS / f"renders_{part}_{count}.pt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        pictures = [to_tensor(draw(scene).image) for scene in tqdm(scenes(count, part), desc="drawing")]
        torch.save(torch.stack(pictures), path)
    return torch.load(path)


def to_pixels(pictures: Tensor) -> Tensor:
    """Bytes -> [-1, 1]."""
    return pictures.float() / 127.5 - 1
