"""The decoder alone, on whole pictures: latents, and so every model trained on them, stay as they are."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from flux_core.packing import unpack
from painter.family import FILES, load_autoencoder, save_autoencoder
from painter.train.autoencoder import LATENT_NOISE, psnr, reconstruction_loss
from painter.train.data import HELD_OUT, TRAINING, renders, to_pixels
from painter.train.loop import RUNS, Ema, Optimisers, contact_sheet, half_precision, run_stage
from painter.train.pairs import latents, pictures


def train(steps: int = 1600, batch: int = 2, lr: float = 2e-3) -> None:
    torch.manual_seed(0)
    path = RUNS / FILES["ae"]
    model = load_autoencoder(path)
    parameters = list(model.decoder.parameters())
    kernels = [p for p in parameters if p.ndim == 4 and min(p.flatten(1).shape) > 3]
    optimisers = Optimisers(kernels, [p for p in parameters if not any(p is k for k in kernels)], lr, steps)
    ema = Ema(model.decoder)
    held_out = to_pixels(renders(64, HELD_OUT))
    shards = [k for k in range(100) if (RUNS / "pairs" / f"latents_{TRAINING}_{k}.pt").exists()]
    data = [(pictures(k), latents(k, None)) for k in shards]

    def step(i: int) -> dict[str, float]:
        drawn, seen = data[int(torch.randint(len(data), ()))]
        which = torch.randint(len(drawn.before), (batch,))
        side = "before" if torch.rand(()) < 0.5 else "after"
        truth = to_pixels(getattr(drawn, side)[which]).contiguous(memory_format=torch.channels_last)
        seen = unpack(seen[side][which].float(), 16, 16)
        noisy = (seen + LATENT_NOISE * torch.randn_like(seen)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            guess = model.decode(noisy)
        guess = guess.float()
        loss = reconstruction_loss(guess, truth)
        loss.backward()
        optimisers.step(i)
        ema.update()
        return {"loss": loss.item(), "mse": F.mse_loss(guess, truth).item()}

    @torch.no_grad()
    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        guess = model.decode(model.encode(held_out))
        save_autoencoder(path, model)
        ema.swap()
        contact_sheet([(held_out[:8] + 1) / 2, (guess[:8] + 1) / 2], folder / "samples.png", 2)
        return {"psnr": psnr(guess, held_out).mean().item()}

    parts: dict[str, nn.Module | Optimisers] = {"model": model.decoder, "optimisers": optimisers, "ema": ema}
    run_stage("decoder", parts, step, steps, report, report_every=300)
