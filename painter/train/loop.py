"""What every stage shares: steps with a progress bar, a checkpoint that a killed run resumes from, a loss plot."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from tqdm import tqdm

from flux_core.processor import bf16_pays

RUNS = Path(__file__).parent.parent / "runs"
WEIGHTS = Path(__file__).parent.parent / "weights"


@cache
def half_precision() -> torch.autocast:
    """Autocast to bfloat16 where that is faster; elsewhere a context that changes nothing."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16_pays())


class Ema(nn.Module):
    """A running mean of a model's parameters; its memory grows with the steps up to `decay`."""

    def __init__(self, model: nn.Module, decay: float = 0.999):
        super().__init__()
        self.decay, self.steps = decay, 0
        self.live = list(model.parameters())
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        torch._foreach_lerp_(self.mean, self.live, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        for mean, saved in zip(self.mean, state["mean"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's parameters with their mean; twice is nothing."""
        for live, mean in zip(self.live, self.mean, strict=True):
            held = live.clone()
            live.copy_(mean)
            mean.copy_(held)


class Muon(torch.optim.Muon):
    """torch's Muon for kernels of any rank: each is seen as a matrix (out, everything else) that shares its memory."""

    def __init__(self, weights: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        self.weights = list(weights)
        self.matrices = [w.detach().flatten(1) for w in self.weights]
        super().__init__(self.matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.grad = weight.grad.flatten(1)
        super().step(closure)


class Optimisers:
    """Muon for the matrices it suits, AdamW for the rest, one learning rate schedule for both."""

    def __init__(self, matrices: list[Tensor], rest: list[Tensor], lr: float, steps: int, warmup: int = 100):
        self.parts = [Muon(matrices, lr)] if matrices else []
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0))
        self.parameters, self.lr, self.steps, self.warmup = [*matrices, *rest], lr, steps, warmup

    def rate(self, step: int) -> float:
        """Warm up, stay, and fall to zero over the last third."""
        left = (self.steps - step) / max(1, self.steps / 3)
        return self.lr * max(0.0, min(1.0, (step + 1) / self.warmup, left))

    def step(self, step: int, clip: float = 1.0) -> None:
        nn.utils.clip_grad_norm_(self.parameters, clip)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.rate(step)
            part.step()
            part.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> list[Any]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[Any]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def run_stage(
    name: str,
    parts: Mapping[str, Any],
    step: Callable[[int], Mapping[str, float]],
    steps: int,
    report: Callable[[Path, int], Mapping[str, float]],
    save_every: float = 120.0,
    report_every: float = 600.0,
) -> None:
    """Run `step(i)` for i < `steps`, from the last checkpoint on if there is one.

    parts: what has state_dict and load_state_dict, saved together in runs/<name>/checkpoint.pt.
    report: writes samples into the folder and returns scores for its log; run now and then, and at the end.
    """
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    start, minutes = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        start, minutes = saved["step"], saved["minutes"]
        for key, part in parts.items():
            part.load_state_dict(saved[key])

    def save(done: int) -> None:
        state = {"step": done, "minutes": minutes, **{key: part.state_dict() for key, part in parts.items()}}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
        plot_losses(log, folder / "loss.png")

    last = saved_at = reported_at = time.monotonic()
    means: dict[str, float] = {}
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=5)
    for i in bar:
        torch.manual_seed(1_000_003 * i + 17)
        losses = step(i)
        means = {k: means.get(k, v) * 0.98 + v * 0.02 for k, v in losses.items()}
        now = time.monotonic()
        minutes, last = minutes + (now - last) / 60, now
        if i % 20 == 19:
            bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()}, refresh=False)
            write_line(log, {"step": i + 1, "minutes": round(minutes, 2), **means})
        if now - saved_at > save_every:
            save(i + 1)
            saved_at = now
        if now - reported_at > report_every:
            write_line(log, {"step": i + 1, "minutes": round(minutes, 2), "scores": dict(report(folder, i + 1))})
            reported_at = last = time.monotonic()
    save(steps)
    write_line(log, {"step": steps, "minutes": round(minutes, 2), "scores": dict(report(folder, steps))})


def write_line(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def plot_losses(log: Path, path: Path, width: int = 900, height: int = 300) -> None:
    """Every logged loss over the steps, on a logarithmic axis."""
    lines = (
        [line for line in map(json.loads, log.read_text().splitlines()) if "scores" not in line] if log.exists() else []
    )
    if len(lines) < 2:
        return
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    names = [key for key in lines[-1] if key not in ("step", "minutes")]
    for name, colour in zip(names, ("#2563eb", "#dc2626", "#16a34a", "#9333ea", "#d97706"), strict=False):
        points = [(line["step"], torch.tensor(max(line[name], 1e-9)).log().item()) for line in lines if name in line]
        low, high = min(v for _, v in points), max(v for _, v in points)
        x = [20 + (width - 40) * s / points[-1][0] for s, _ in points]
        y = [height - 20 - (height - 50) * (v - low) / max(1e-6, high - low) for _, v in points]
        pen.line(list(zip(x, y, strict=True)), fill=colour, width=2)
        pen.text((30 + 220 * names.index(name), 6), f"{name}: {lines[-1][name]:.4f}", fill=colour)
    image.save(path)


def contact_sheet(rows: list[Tensor], path: Path, scale: int = 1) -> None:
    """Rows of pictures (n, 3, h, w) in [0, 1] as one PNG."""
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)
    image = Image.fromarray((grid.permute(1, 2, 0) * 255).round().byte().numpy())
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)
