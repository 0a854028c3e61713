"""schnell: four straight steps that arrive where the guided model's many small ones do (after arXiv 2202.00512).

The guided model paints many pictures; where it stood at noise levels 1, 3/4, 1/2, 1/4 and 0 is kept. schnell learns the
straight way from each of these points to the next.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from flux_core.model.transformer import Transformer
from flux_core.schedule import sigmas
from painter.train.batches import Batch, Data, text_to_image
from painter.train.data import TRAINING
from painter.train.flow import follow, random_length, velocity
from painter.train.loop import RUNS, half_precision
from painter.train.pairs import Words, save

STEPS, SMALL = 4, 5  # of schnell, and of the teacher in each of them
GUIDANCE = 3.5
SHARD, SHARDS = 250, 20


class Paths:
    """Where the teacher stood, (250, 5, 64, 64) a shard, and what it was told; made once, kept in runs/."""

    def __init__(self, teacher: Transformer) -> None:
        data, self.shards = Data(TRAINING), []
        for shard in tqdm(range(SHARDS), desc="the teacher's paths"):
            path = RUNS / "pairs" / f"paths_{shard}.pt"
            if not path.exists():
                torch.manual_seed(shard)
                save(walk(teacher, data), path)
            self.shards.append(torch.load(path, weights_only=False))

    def some(self, count: int) -> tuple[Tensor, Words]:
        points, said = self.shards[int(torch.randint(len(self.shards), ()))]
        which = torch.randperm(len(points))[:count]
        return points[which].float(), said[which]


def walk(teacher: Transformer, data: Data) -> tuple[Tensor, Words]:
    batch = text_to_image(*data.some(SHARD), side="before" if torch.rand(()) < 0.5 else "after")
    path = follow(teacher, batch, sigmas(STEPS * SMALL), GUIDANCE, torch.randn_like(batch.target))
    return torch.stack(path[::SMALL], dim=1).half(), Words(batch.said.states.half(), batch.said.pooled)


def few_steps_loss(model: Transformer, points: Tensor, said: Words) -> Tensor:
    """points (b, 5, 64, 64): velocity of the straight way from a random one of the first four to the next."""
    count = len(points)
    row, start = torch.arange(count), torch.randint(STEPS, (count,))
    here, there = points[row, start], points[row, start + 1]
    t = 1 - start / STEPS
    with half_precision():
        guess = velocity(model, here, t, Batch(there, said), torch.ones(count), random_length())
    return F.mse_loss(guess, (here - there) * STEPS)
