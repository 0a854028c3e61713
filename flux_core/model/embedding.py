"""Numbers and positions as vectors: sinusoids, the small MLPs behind them, rotary tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

TIME_CHANNELS = 256


def sinusoid(
    t: Tensor, channels: int = TIME_CHANNELS, time_factor: float = 1000.0, max_period: float = 10_000
) -> Tensor:
    """`(b,)` values, usually in [0, 1], to `(b, channels)` cosines and sines, in the dtype of `t`.

    time_factor * t is rounded to that dtype first, as it was in training and is in ComfyUI: a bfloat16 guidance of
    3.5 is seen as 3504.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (time_factor * t)[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(t)


def rotary(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Tensor:
    """`(b, tokens, axes)` positions to rotations `(b, 1, tokens, head_dim / 2, 2, 2)` in float32.

    Angles are made in float64 (on the CPU where a device has none): at column 127 float32 is off by 1e-5 of a turn.
    """
    device = ids.device if ids.device.type in ("cpu", "cuda", "meta") else torch.device("cpu")
    angles = torch.cat([_angles(ids[..., i].to(device), dim, theta) for i, dim in enumerate(axes_dim)], dim=-1)
    table = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1)
    return rearrange(table, "b n d (i j) -> b 1 n d i j", i=2, j=2).to(ids.device, torch.float32)


def _angles(position: Tensor, dim: int, theta: int) -> Tensor:
    exponents = torch.linspace(0, (dim - 2) / dim, dim // 2, dtype=torch.float64, device=position.device)
    return position.double()[..., None] / theta**exponents


class MLPEmbedder(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, in_dim: int, hidden_dim: int, operations: Any, **factory: Any):
        super().__init__()
        self.in_layer = operations.Linear(in_dim, hidden_dim, bias=True, **factory)
        self.silu = nn.SiLU()
        self.out_layer = operations.Linear(hidden_dim, hidden_dim, bias=True, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(self.silu(self.in_layer(x)))
