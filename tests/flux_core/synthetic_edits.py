"""Photographs, and editors that stand in for a model: each moves, recolours, blurs or adds noise, and paints one object."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from painter.family import FILES, load_autoencoder
from painter.painter import WEIGHTS

SHIPPED = Path(skimage.__file__).parent / "data"  # the files that need no network
BY_SKLEARN = {"china.jpg", "flower.jpg"}
CUTS = {  # left, top, width, height: odd sizes too
    "astronaut.png": (0, 0, 400, 384), "camera.png": (100, 20, 320, 320), "coffee.png": (100, 0, 400, 301),
    "chelsea.png": (60, 0, 351, 300), "rocket.jpg": (100, 20, 301, 407), "motorcycle_left.png": (140, 60, 384, 320),
    "hubble_deep_field.jpg": (200, 100, 301, 299), "retina.jpg": (500, 400, 353, 335), "ihc.png": (0, 0, 311, 352),
    "brick.png": (0, 0, 309, 349), "gravel.png": (0, 0, 352, 284), "grass.png": (30, 10, 283, 350),
    "coins.png": (0, 0, 384, 303), "china.jpg": (120, 60, 400, 320), "flower.jpg": (80, 20, 416, 311),
}  # fmt: skip


@cache
def photographs() -> dict[str, np.ndarray]:
    """`(height, width, 3)` in [0, 1]."""
    found = {}
    for name, (left, top, width, height) in CUTS.items():
        whole = load_sample_image(name) if name in BY_SKLEARN else cv2.imread(str(SHIPPED / name))[..., ::-1]
        picture = whole[top : top + height, left : left + width]
        found[name.split(".")[0]] = np.ascontiguousarray(picture, np.float32) / 255
    return found


@dataclass(frozen=True)
class Drift:
    """What an editor does to all of a picture."""

    right: float = 0
    down: float = 0
    scale: float = 1
    degrees: float = 0
    gains: tuple[float, float, float] = (1, 1, 1)
    field: float = 0
    """How far a smooth field of colours goes, as a share."""
    noise: float = 0
    blurred: bool = False
    """Through the trained autoencoder."""


@dataclass(frozen=True)
class Edit:
    """An edited picture, where in the source it was changed, and where each point of the source now is."""

    source: Tensor
    """`(height, width, 3)`."""
    edited: Tensor
    changed: np.ndarray
    matrix: np.ndarray
    """`(2, 3)`: pixel of the source to pixel of the edited picture."""

    def points(self) -> np.ndarray:
        """Positions `(n, 2)` all over the source."""
        height, width = self.source.shape[:2]
        return np.stack(np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 9)), -1).reshape(-1, 2)

    def moved(self) -> np.ndarray:
        return self.points() @ self.matrix[:, :2].T + self.matrix[:, 2]


def edit(source: np.ndarray, drift: Drift, share: float = 0.0, seed: int = 0) -> Edit:
    """`source` with an object over that share of it, as an editor with that `drift` gives it back."""
    random = np.random.default_rng(seed)
    height, width = source.shape[:2]
    painted, changed = with_object(source, share, random)
    middle = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, -drift.degrees, drift.scale)
    matrix[:, 2] += drift.right, drift.down
    moved = cv2.warpAffine(painted, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    coloured = moved * np.float32(drift.gains) * (1 + drift.field * smooth_field(height, width, random))
    noisy = coloured + random.normal(0, drift.noise, coloured.shape)
    edited = torch.from_numpy(noisy.clip(0, 1).astype(np.float32))
    return Edit(torch.from_numpy(source), through_autoencoder(edited) if drift.blurred else edited, changed, matrix)


def smooth_field(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """`(height, width, 3)` in [-1, 1], a wave or less across the picture."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    waves = [
        np.sin(np.pi * (a * x + b * y) + c) for a, b, c in random.uniform((-1.5, -1.5, 0), (1.5, 1.5, 6.3), (3, 3))
    ]
    return np.stack(waves, -1).astype(np.float32)


def with_object(source: np.ndarray, share: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a striped blob over that share of it, and where it is."""
    height, width = source.shape[:2]
    changed = np.zeros((height, width), bool)
    if share == 0:
        return source, changed
    y, x = np.mgrid[:height, :width]
    at = random.uniform(0.5 - 0.3 * (1 - share), 0.5 + 0.3 * (1 - share), 2)
    angle = np.arctan2(y / height - at[0], x / width - at[1])
    bumps = 1 + 0.15 * np.sin(3 * angle + random.uniform(0, 6)) + 0.08 * np.sin(5 * angle + random.uniform(0, 6))
    distance = np.hypot((y / height - at[0]), (x / width - at[1])) / bumps
    changed = distance < np.quantile(distance, share)
    hue = random.uniform(0.1, 0.9, (2, 3)).astype(np.float32)
    hue[0] = np.where(source[changed].mean(0) > 0.5, hue[0] * 0.4, 0.6 + 0.4 * hue[0])  # so that it can be told apart
    stripes = (np.sin((x * random.uniform(-1, 1) + y) * 2 * np.pi / random.uniform(12, 40)) > 0.7)[..., None]
    surface = np.where(stripes, 0.6 * hue[0] + 0.4 * hue[1], hue[0]).astype(np.float32)
    shade = (0.9 + 0.1 * np.cos(4 * distance))[..., None].astype(np.float32)
    return np.where(changed[..., None], surface * shade, source), changed


@cache
def autoencoder() -> torch.nn.Module:
    return load_autoencoder(WEIGHTS / FILES["ae"])


@torch.inference_mode()
def through_autoencoder(image: Tensor) -> Tensor:
    """Encoded and decoded by the tiny autoencoder, which was trained on drawn landscapes: blurs a photograph."""
    height, width = image.shape[:2]
    padded = torch.nn.functional.pad(image.movedim(-1, 0)[None], (0, -width % 16, 0, -height % 16), mode="replicate")
    model = autoencoder()
    decoded = model.decode(model.encode(padded * 2 - 1)) / 2 + 0.5
    return decoded[0, :, :height, :width].movedim(0, -1).clamp(0, 1).clone()


DRIFTS: dict[str, Drift] = {
    "identity": Drift(),
    "shift": Drift(right=7.3, down=-11.6),
    "enlarged": Drift(right=-3.4, down=2.2, scale=1.04),
    "reduced": Drift(right=12, down=5.5, scale=0.96),
    "turned": Drift(right=2.7, down=1.3, scale=1.01, degrees=-1),
    "colours": Drift(right=1.4, down=-0.6, gains=(1.08, 0.94, 0.9), field=0.1),
    "noise": Drift(right=-5.2, down=4.1, scale=0.99, degrees=0.5, noise=0.04),
    "autoencoder": Drift(right=3.3, down=-2.4, scale=1.012, degrees=0.3, blurred=True),
    "all": Drift(-8.7, 6.4, 1.025, -0.7, (0.93, 1.05, 1.1), 0.08, 0.02, True),
}
