"""A small convolutional autoencoder in the key layout of FLUX's `ae.safetensors`.

The layout is CompVis' (encoder.down.0.block.0.norm1 ...), the widths are tiny. The released decoder and encoder
normalise over 32 groups; on 32 channels that would be one group per channel, which wipes out flat colour, so the
number of groups is its own setting and is written into the file's metadata.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AutoencoderConfig:
    ch: int = 32
    ch_mult: tuple[int, ...] = (1, 1, 2, 2)
    num_res_blocks: int = 1
    z_channels: int = 16
    norm_groups: int = 4


SCALE, SHIFT = 0.3611, 0.1159  # FLUX's latent normalisation: (z - SHIFT) * SCALE


def norm(channels: int, config: AutoencoderConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, inner: int, outer: int, config: AutoencoderConfig):
        super().__init__()
        self.norm1, self.conv1 = norm(inner, config), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = norm(outer, config), nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.nin_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttnBlock(nn.Module):
    def __init__(self, channels: int, config: AutoencoderConfig):
        super().__init__()
        self.norm = norm(channels, config)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(channels: int, config: AutoencoderConfig) -> nn.Module:
    mid = nn.Module()
    mid.block_1 = ResnetBlock(channels, channels, config)
    mid.attn_1 = AttnBlock(channels, config)
    mid.block_2 = ResnetBlock(channels, channels, config)
    return mid


class Encoder(nn.Module):
    """(batch, 3, h, w) pixels in [-1, 1] -> (batch, 2 * z_channels, h/8, w/8): mean and log variance."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        inner = config.ch
        for level, width in enumerate(widths):
            down = nn.Module()
            down.block = nn.ModuleList(
                ResnetBlock(inner if i == 0 else width, width, config) for i in range(config.num_res_blocks)
            )
            if level < len(widths) - 1:
                down.downsample = Downsample(width)
            self.down.append(down)
            inner = width
        self.mid = middle(inner, config)
        self.norm_out = norm(inner, config)
        self.conv_out = nn.Conv2d(inner, 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for down in self.down:
            for block in down.block:
                h = block(h)
            if hasattr(down, "downsample"):
                h = down.downsample(h)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """(batch, z_channels, h/8, w/8) -> (batch, 3, h, w)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1], config)
        levels, inner = [], widths[-1]
        for level in reversed(range(len(widths))):
            up = nn.Module()
            up.block = nn.ModuleList(
                ResnetBlock(inner if i == 0 else widths[level], widths[level], config)
                for i in range(config.num_res_blocks + 1)
            )
            if level > 0:
                up.upsample = Upsample(widths[level])
            levels.insert(0, up)
            inner = widths[level]
        self.up = nn.ModuleList(levels)
        self.norm_out = norm(inner, config)
        self.conv_out = nn.Conv2d(inner, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))
        for up in reversed(self.up):
            for block in up.block:
                h = block(h)
            if hasattr(up, "upsample"):
                h = up.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Autoencoder(nn.Module):
    """Pixels in [-1, 1] <-> latents in FLUX's normalisation, (batch, 16, h/8, w/8) with about unit variance."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance as the file's encoder gives them, before SCALE and SHIFT."""
        mean, logvar = self.encoder(pixels).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def encode(self, pixels: Tensor) -> Tensor:
        return (self.moments(pixels)[0] - SHIFT) * SCALE

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents / SCALE + SHIFT)


@torch.no_grad()
def quiet_start(model: Autoencoder) -> Autoencoder:
    """Zeroes each residual branch's last convolution so that training starts from a near-linear network."""
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, AttnBlock):
            nn.init.zeros_(module.proj_out.weight)
    return model
