"""Photographs, masks and editors that stand in for a model, for the tests of edits."""

import math
from collections.abc import Callable

import numpy as np
import torch
from skimage import data
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

Editor = Callable[[Tensor, Tensor], Tensor]
"""From picture `(b, height, width, 3)` and mask `(b, height, width)` to the edited picture."""


def tensor(picture: np.ndarray) -> Tensor:
    """`(1, height, width, 3)` in [0, 1] of an 8-bit picture, grey or with alpha too."""
    colours = picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    return torch.from_numpy(colours.astype(np.float32))[None] / 255


def photographs() -> dict[str, Tensor]:
    """Fifteen, most of them cuts of odd sizes, small enough to be quick."""
    china, flower = (load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
    left, right, _ = data.stereo_motorcycle()
    return {
        name: tensor(picture)
        for name, picture in {
            "astronaut": data.astronaut()[:261, 101:360],
            "coffee": data.coffee()[60:300, 100:401],
            "chelsea": data.chelsea()[20:275, 80:320],
            "rocket": data.rocket()[100:, 180:501],
            "retina": data.retina()[300:501, 200:399],
            "immunohistochemistry": data.immunohistochemistry()[:200, 50:301],
            "hubble": data.hubble_deep_field()[:233, :217],
            "motorcycle": left[190:420, 200:501],
            "motorcycle from the right": right[99:299, 300:600],
            "camera": data.camera()[100:301, 100:311],
            "coins": data.coins()[:211, :257],
            "moon": data.moon()[:201, :301],
            "brick": data.brick()[:157, :255],
            "china": china[:240, 100:401],
            "flower": flower[100:300, 150:390],
        }.items()
    }


def disc(height: int, width: int, y: float = 0.5, x: float = 0.45, radius: float = 0.17) -> Tensor:
    """White at a place and of a radius in shares of the height and width, `(1, height, width)`."""
    rows, columns = torch.arange(height)[:, None] - y * height, torch.arange(width) - x * width
    return (rows**2 + columns**2 < (radius * min(height, width)) ** 2).float()[None]


def soft(height: int, width: int) -> Tensor:
    rows, columns = torch.arange(height)[:, None] / height - 0.4, torch.arange(width) / width - 0.6
    return (1.5 - 6 * (rows**2 + columns**2).sqrt()).clamp(0, 1)[None]


def islands(height: int, width: int) -> Tensor:
    """A large one, a small one, a stroke two pixels wide and a single pixel."""
    mask = disc(height, width, 0.3, 0.3, 0.12) + disc(height, width, 0.7, 0.7, 0.04)
    mask[:, height // 2 : height // 2 + 2, width // 3 : width - width // 8] = 1
    mask[:, height - height // 8, width // 8] = 1
    return mask.clamp(max=1)


def bordering(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, : height // 4, width // 2 :] = 1
    return mask


def ring(height: int, width: int) -> Tensor:
    return disc(height, width, radius=0.25) - disc(height, width, radius=0.15)


MASKS = {"disc": disc, "soft": soft, "islands": islands, "at the border": bordering, "with a hole": ring}


def field(height: int, width: int, seed: int, amount: float = 0.1) -> Tensor:
    """A smooth wave for each colour, up to one period long in each direction, `(height, width, 3)`."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    waves = (torch.rand(3, 2, generator=random) * 2 - 1) * 2 * math.pi
    phases = torch.rand(3, generator=random) * 2 * math.pi
    return torch.stack([
        amount * torch.sin(a * rows + b * columns + phase)
        for (a, b), phase in zip(waves.tolist(), phases.tolist(), strict=True)
    ], -1)  # fmt: skip


def moved(image: Tensor, right: float = 0, down: float = 0, scale: float = 1) -> Tensor:
    """The picture slid by so many pixels and grown about its middle."""
    height, width = image.shape[1:3]
    theta = torch.tensor([[1, 0, -right * 2 / width], [0, 1, -down * 2 / height]]) / scale
    grid = affine_grid(theta.expand(len(image), -1, -1), [len(image), 3, height, width], align_corners=False)
    picture = grid_sample(image.movedim(-1, 1), grid, padding_mode="reflection", align_corners=False)
    return picture.movedim(1, -1).clamp(0, 1)


def painted(image: Tensor, mask: Tensor) -> Tensor:
    """A red object over a part of what is masked and a little beyond it."""
    where = (mask > 0.5) & (torch.arange(image.shape[2]) % 40 < 25)
    where[:, 1:] |= where[:, :-1].clone()
    return torch.where(where[..., None], torch.tensor([0.9, 0.1, 0.15]), image)


def noisy(image: Tensor, mask: Tensor) -> Tensor:
    return (image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)


EDITORS: dict[str, Editor] = {
    "identity": lambda image, mask: image,
    "shift": lambda image, mask: moved(image, 12, -7),
    "smaller": lambda image, mask: moved(image, scale=0.96),
    "larger": lambda image, mask: moved(image, scale=1.04),
    "gain": lambda image, mask: (image * torch.tensor([1.1, 0.95, 0.9])).clamp(0, 1),
    "field": lambda image, mask: (image * (1 + field(*image.shape[1:3], 5))).clamp(0, 1),
    "noise": noisy,
    "object": painted,
}
