"""The autoencoder: crops of renders, absolute and squared error, edges, and latents held to FLUX's mean and variance."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from painter.autoencoder import Autoencoder, quiet_start
from painter.family import FILES, save_autoencoder
from painter.train.data import HELD_OUT, renders, to_pixels
from painter.train.loop import RUNS, Ema, Optimisers, contact_sheet, half_precision, run_stage

CROP, BATCH, LATENT_NOISE = 64, 8, 0.03


def crops(pictures: Tensor, size: int, count: int) -> Tensor:
    """Random squares, half of them mirrored, in [-1, 1], (count, 3, size, size)."""
    which = torch.randint(len(pictures), (count,))
    corners = torch.randint(pictures.shape[-1] - size + 1, (count, 2)).tolist()
    squares = [pictures[i, :, y : y + size, x : x + size] for i, (y, x) in zip(which.tolist(), corners, strict=True)]
    batch = to_pixels(torch.stack(squares))
    return (batch if torch.rand(()) < 0.5 else batch.flip(-1)).contiguous(memory_format=torch.channels_last)


def edges(x: Tensor) -> Tensor:
    return torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], dim=1)


def reconstruction_loss(guess: Tensor, truth: Tensor) -> Tensor:
    error = guess - truth
    return error.square().mean() + 0.2 * error.abs().mean() + 0.3 * (edges(guess) - edges(truth)).abs().mean()


def latent_penalty(latents: Tensor) -> Tensor:
    """How far each channel's mean and log variance over the batch are from 0 and 0."""
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return mean.square().mean() + (variance + 1e-4).log().square().mean()


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Per picture, both in [-1, 1]."""
    error = (guess.clamp(-1, 1) - truth).square().flatten(1).mean(1)
    return 10 * (4 / error.clamp(min=1e-10)).log10()


def train(steps: int = 2600, crop: int = CROP, batch: int = BATCH, lr: float = 3e-3, pictures: int = 3000) -> None:
    torch.manual_seed(0)
    model = quiet_start(Autoencoder())
    kernels = [p for p in model.parameters() if p.ndim == 4 and min(p.flatten(1).shape) > 3]
    optimisers = Optimisers(kernels, [p for p in model.parameters() if not any(p is k for k in kernels)], lr, steps)
    ema = Ema(model)
    data, held_out = renders(pictures), to_pixels(renders(64, HELD_OUT))

    def step(i: int) -> dict[str, float]:
        truth = crops(data, crop, batch)
        with half_precision():
            latents = model.encode(truth)
            guess = model.decode(latents + LATENT_NOISE * torch.randn_like(latents))
        latents, guess = latents.float(), guess.float()
        loss = reconstruction_loss(guess, truth)
        (loss + 0.01 * latent_penalty(latents)).backward()
        optimisers.step(i)
        ema.update()
        return {"loss": loss.item(), "mse": F.mse_loss(guess, truth).item()}

    @torch.no_grad()
    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        latents = model.encode(held_out)
        guess = model.decode(latents)
        save_autoencoder(RUNS / FILES["ae"], model)
        ema.swap()
        contact_sheet([(held_out[:8] + 1) / 2, (guess[:8] + 1) / 2], folder / "samples.png", 2)
        return {"psnr": psnr(guess, held_out).mean().item(), "latent_std": latents.std().item()}

    run_stage(
        "autoencoder", {"model": model, "optimisers": optimisers, "ema": ema}, step, steps, report, report_every=300
    )
