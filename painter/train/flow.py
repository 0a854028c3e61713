"""Flow matching with flux_core's transformer: the loss, a sampler, and attention that trains fast.

Pads. FLUX attends to every T5 pad, and stock nodes pad to 256 or more. All text positions are zero and the text encoder
returns the same vector for every pad, so n equal pads are one pad whose attention logit is raised by log n: training
sees the lengths that inference uses for the price of the longest caption.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flux_core.model.attention import Stream, for_queries, joined
from flux_core.model.hooks import Hooks
from flux_core.model.transformer import Transformer
from flux_core.packing import image_ids
from flux_core.sampling import euler
from flux_core.schedule import shift_for, sigmas
from painter.redux import TOKENS
from painter.train.batches import Batch
from painter.train.loop import half_precision
from painter.train.pairs import Words

GRID = 8  # tokens along each side of a picture
LENGTHS = (128, 256, 256, 256, 512)  # T5 lengths that inference uses; 256 is the stock nodes'
EMPTY_SHARE = 0.08
LARGEST_GUIDANCE = 40.0


class Trainable(Hooks):
    """The same attention as plain products, which gradients pass faster than through the fused kernel on a CPU.

    Rotated pairs end up half a head apart instead of side by side, in queries and keys alike: their product is the same.
    """

    def attention(
        self, streams: Sequence[Stream], pe: Tensor, mask: Tensor | None, text_tokens: int, needed: slice = slice(None)
    ) -> Tensor:
        def turned(x: Tensor, pe: Tensor) -> Tensor:
            cos, sin = pe[..., 0, 0].to(v.dtype), pe[..., 1, 0].to(v.dtype)
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)

        q, k, v = joined(streams, needed)
        mask = for_queries(mask, needed)
        scores = (turned(q, pe[:, :, needed]) @ turned(k, pe).transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        scores = scores if mask is None else scores + mask
        return rearrange(scores.softmax(-1).to(v.dtype) @ v, "b h n d -> b n (h d)")


def pad_bias(text_tokens: int, length: int, tokens: int) -> Tensor:
    """(1, 1, 1, tokens): zero, but the last text token counts for all pads from there to `length`."""
    bias = torch.zeros(1, 1, 1, tokens)
    bias[..., text_tokens - 1] = math.log(length - text_tokens + 1)
    return bias


def velocity(model: Transformer, x: Tensor, t: Tensor, batch: Batch, guidance: Tensor, length: int) -> Tensor:
    """Of noisy packed latents (b, 64, 64) at noise levels (b,)."""
    words, shown = batch.said.states, batch.shown
    tokens = words.shape[1] + x.shape[1] * (1 if batch.reference is None else 2)
    mask = pad_bias(words.shape[1], length, tokens)
    if shown is not None:
        words = torch.cat([shown, words], dim=1)
        mask = F.pad(mask, (shown.shape[1], 0), value=math.log(TOKENS / shown.shape[1]))
    return model(
        x, image_ids(GRID, GRID), words, t, batch.said.pooled, guidance,
        extra=batch.extra,
        references=() if batch.reference is None else [(batch.reference, image_ids(GRID, GRID, 1))],
        mask=mask,
        hooks=Trainable(),
    ).float()  # fmt: skip


def noise_levels(count: int) -> Tensor:
    """Mostly where pictures are decided, some everywhere."""
    t = torch.sigmoid(0.8 + torch.randn(count))
    return torch.where(torch.rand(count) < 0.12, torch.rand(count), t)


def random_length() -> int:
    return LENGTHS[int(torch.randint(len(LENGTHS), ()))]


def silenced(said: Words, empty: Words, which: Tensor) -> Words:
    """`said` with nothing said where `which` (b,) is true."""
    return Words(
        torch.where(which[:, None, None], empty.cut(said.states.shape[1]).states, said.states),
        torch.where(which[:, None], empty.pooled, said.pooled),
    )


def noisy(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """x at random noise levels t (b,), those levels, and the velocity there."""
    t, noise = noise_levels(len(batch.target)), torch.randn_like(batch.target)
    return torch.lerp(batch.target, noise, t[:, None, None]), t, noise - batch.target


def flow_loss(model: Transformer, batch: Batch, empty: Words) -> Tensor:
    """The guidance input is any number: it means nothing until `guidance_loss`."""
    count = len(batch.target)
    batch.said = silenced(batch.said, empty, torch.rand(count) < EMPTY_SHARE)
    x, t, wanted = noisy(batch)
    guidance = 1 + (LARGEST_GUIDANCE - 1) * torch.rand(count)
    with half_precision():
        return F.mse_loss(velocity(model, x, t, batch, guidance, random_length()), wanted)


def guidance_weight(guidance: Tensor) -> Tensor:
    """How far a guidance goes beyond the plain velocity: classifier-free guidance of 2.25 at 3.5, none at 1."""
    return 1 + 0.5 * (guidance - 1)


def guidance_loss(model: Transformer, teacher: Transformer, batch: Batch, empty: Words) -> Tensor:
    """Guidance distillation (arXiv 2210.03142): the number given stands for the teacher with and without the prompt."""
    count = len(batch.target)
    silence = silenced(batch.said, empty, torch.ones(count, dtype=torch.bool))
    batch.said = silenced(batch.said, empty, torch.rand(count) < EMPTY_SHARE / 2)
    x, t, _ = noisy(batch)
    usual, any_at_all = 1 + 5 * torch.rand(count), LARGEST_GUIDANCE ** torch.rand(count)
    guidance, length = torch.where(torch.rand(count) < 0.6, usual, any_at_all), random_length()
    weight = guidance_weight(guidance)[:, None, None]
    with half_precision():
        with torch.no_grad():
            told = velocity(teacher, x, t, batch, guidance, length)
            untold = velocity(teacher, x, t, Batch(x, silence), guidance, length)
        wanted = untold + weight * (told - untold)
        return ((velocity(model, x, t, batch, guidance, length) - wanted) / weight).square().mean()


@torch.no_grad()
def follow(model: Transformer, batch: Batch, schedule: Tensor, guidance: float, noise: Tensor) -> list[Tensor]:
    """Euler at T5 length 256; the packed latents (b, 64, 64) at every level of the schedule."""
    told, path = noise.new_full((len(noise),), guidance), []

    def field(x: Tensor, t: Tensor) -> Tensor:
        path.append(x)
        return velocity(model, x, t.expand(len(noise)), batch, told, 256)

    with half_precision():
        last = euler(field, noise, schedule)
    return [*path, last]


def sample(model: Transformer, batch: Batch, steps: int, guidance: float, shifted: bool, seed: int = 0) -> Tensor:
    """Packed latents (b, 64, 64) along the schedule that the nodes would use."""
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(seed))
    return follow(model, batch, sigmas(steps, shift_for(GRID * GRID) if shifted else None), guidance, noise)[-1]
