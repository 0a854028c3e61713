"""Flow matching with flux_core's transformer: every variant is one way of making a batch.

Pads. FLUX attends to every T5 pad, and stock nodes pad to 256 or more. All text positions are zero and the text encoder
returns the same vector for every pad, so n equal pads are one pad whose attention logit is raised by log n: training
sees the lengths that inference uses for the price of the longest caption.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from flux_core.conditioning import mask_to_cells
from flux_core.model.hooks import Hooks
from flux_core.model.transformer import Transformer
from flux_core.packing import image_ids, pack, unpack
from flux_core.sampling import euler
from flux_core.schedule import shift_for, sigmas
from painter.family import FILES, VARIANTS, load_autoencoder, save_transformer
from painter.judges import read
from painter.scenes import SLOTS
from painter.train.data import HELD_OUT
from painter.train.loop import RUNS, Ema, Optimisers, contact_sheet, run_stage
from painter.train.pairs import Encoders, Words, latents, pictures, save, words

BATCH, SIDE, GRID = 24, 16, 8
TOLD_TOKENS = 20  # as TEXT_TOKENS, for instructions
LENGTHS = (128, 256, 256, 256, 512)  # T5 lengths that inference uses; 256 is the stock nodes'
EMPTY_SHARE = 0.06


class Trainable(Hooks):
    """The same attention, its rotation on whole channels instead of 2 x 2 tables: faster with gradients."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None, text_tokens: int) -> Tensor:
        cos, sin = pe[..., 0, 0], pe[..., 1, 0]

        def turned(x: Tensor) -> Tensor:
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)

        return rearrange(
            F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=mask), "b h n d -> b n (h d)"
        )


@dataclass
class Batch:
    """Clean target (b, 64, 64), what is said, Fill's or a control model's channels, a reference (b, 64, 64)."""

    target: Tensor
    said: Words
    extra: Tensor | None = None
    reference: Tensor | None = None


class Data:
    """The shards that are there; grows while more are being made."""

    def __init__(self, part: int) -> None:
        self.part, self.parts = part, {}

    def look(self) -> int:
        shard = len(self.parts)
        while all((RUNS / "pairs" / f"{kind}_{self.part}_{shard}.pt").exists() for kind in ("words", "latents")):
            self.parts[shard] = latents(shard, None, self.part), words(shard, None, self.part)
            shard += 1
        return shard

    def some(self, count: int) -> tuple[dict[str, Tensor], dict[str, Words]]:
        """Latents and words of `count` random edits; captions in one random wording."""
        seen, said = self.parts[int(torch.randint(len(self.parts), ()))]
        which = torch.randperm(len(seen["before"]))[:count]
        wording = torch.randint(2, (count,))
        picked = {k: v[which] if v.dtype == torch.bool else v[which].float() for k, v in seen.items()}
        return picked, {k: w[which, wording] if w.states.ndim == 4 else w[which] for k, w in said.items()}


def text_to_image(data: Data, count: int) -> Batch:
    seen, said = data.some(count)
    pick = "before" if torch.rand(()) < 0.5 else "after"
    return Batch(seen[pick], said[pick])


def fill(data: Data, count: int) -> Batch:
    seen, said = data.some(count)
    return Batch(seen["filled"], said["filled"], extra=fill_channels(seen["masked"], seen["mask"]))


def fill_channels(masked: Tensor, mask: Tensor) -> Tensor:
    """Packed masked picture (b, 64, 64) and pixel mask (b, 128, 128) -> Fill's (b, 64, 320)."""
    return torch.cat([masked, pack(mask_to_cells(mask[:, None].float()))], dim=-1)


def kontext(data: Data, count: int) -> Batch:
    """The edit as told, the picture before it as the reference."""
    seen, said = data.some(count)
    return Batch(seen["after"], said["told"].cut(TOLD_TOKENS), reference=seen["before"])


def edit(data: Data, count: int) -> Batch:
    """Fill and Kontext in one model: where nothing is masked, Fill's channels are zero."""
    if torch.rand(()) < 0.45:
        return fill(data, count)
    batch = kontext(data, count)
    batch.extra = torch.zeros(*batch.target.shape[:2], VARIANTS["fill"].in_channels - batch.target.shape[2])
    return batch


BATCHES: dict[str, Callable[[Data, int], Batch]] = {"dev": text_to_image, "edit": edit}


def pad_bias(text_tokens: int, length: int, tokens: int) -> Tensor:
    """(1, 1, 1, tokens): zero, but the last text token counts for all pads from there to `length`."""
    bias = torch.zeros(1, 1, 1, tokens)
    bias[..., text_tokens - 1] = math.log(length - text_tokens + 1)
    return bias


def velocity(model: Transformer, x: Tensor, t: Tensor, batch: Batch, guidance: Tensor, length: int) -> Tensor:
    """Of noisy packed latents (b, 64, 64) at noise levels (b,)."""
    text_tokens = batch.said.states.shape[1]
    tokens = text_tokens + x.shape[1] * (1 if batch.reference is None else 2)
    return model(
        x, image_ids(GRID, GRID), batch.said.states, t, batch.said.pooled, guidance,
        extra=batch.extra,
        references=() if batch.reference is None else [(batch.reference, image_ids(GRID, GRID, 1))],
        mask=pad_bias(text_tokens, length, tokens),
        hooks=Trainable(),
    )  # fmt: skip


def noise_levels(count: int) -> Tensor:
    """Mostly where pictures are decided, some everywhere."""
    t = torch.sigmoid(0.8 + torch.randn(count))
    return torch.where(torch.rand(count) < 0.12, torch.rand(count), t)


def flow_loss(model: Transformer, batch: Batch, empty: Words) -> Tensor:
    count = len(batch.target)
    silent = torch.rand(count) < EMPTY_SHARE
    batch.said = Words(
        torch.where(silent[:, None, None], empty.cut(batch.said.states.shape[1]).states, batch.said.states),
        torch.where(silent[:, None], empty.pooled, batch.said.pooled),
    )
    t, noise = noise_levels(count), torch.randn_like(batch.target)
    x = torch.lerp(batch.target, noise, t[:, None, None])
    guidance = 1 + 39 * torch.rand(count)
    length = LENGTHS[int(torch.randint(len(LENGTHS), ()))]
    return F.mse_loss(velocity(model, x, t, batch, guidance, length), noise - batch.target)


@torch.no_grad()
def sample(model: Transformer, batch: Batch, steps: int = 16, guidance: float = 3.5, seed: int = 0) -> Tensor:
    """Euler along the shifted schedule at T5 length 256; packed latents (b, 64, 64)."""
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(seed))
    count = len(noise)
    told = torch.full((count,), guidance)
    return euler(
        lambda x, t: velocity(model, x, t.expand(count), batch, told, 256), noise, sigmas(steps, shift_for(GRID * GRID))
    )


def start(stage: str) -> Transformer:
    """Adaptive norms start as identities; dev comes first, the others start from it with new channels at zero."""
    model = Transformer(VARIANTS["dev" if stage == "dev" else "fill"])
    if stage == "dev":
        for name, parameter in model.named_parameters():
            if "mod.lin" in name or "modulation" in name or name.startswith("final_layer.linear"):
                nn.init.zeros_(parameter)
        return model
    saved = torch.load(RUNS / "dev" / "model.pt")
    widened = torch.zeros_like(model.img_in.weight)
    widened[:, : saved["img_in.weight"].shape[1]] = saved["img_in.weight"]
    saved["img_in.weight"] = widened
    model.load_state_dict(saved)
    return model


def narrowed(model: Transformer) -> Transformer:
    """The same model without channels beside the picture's own."""
    narrow, state = Transformer(VARIANTS["dev"]), model.state_dict()
    narrow.load_state_dict(state | {"img_in.weight": state["img_in.weight"][:, : VARIANTS["dev"].in_channels]})
    return narrow


def train_stage(stage: str, steps: int, lr: float) -> None:
    torch.manual_seed(0)
    model = start(stage)
    blocks = [p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n]
    optimisers = Optimisers(blocks, [p for p in model.parameters() if not any(p is b for b in blocks)], lr, steps)
    ema, data = Ema(model, 0.998), Data(part=1)
    empty = Encoders()([""])[:]

    def step(i: int) -> dict[str, float]:
        if i % 100 == 0 or not data.parts:
            data.look()
        loss = flow_loss(model, BATCHES[stage](data, BATCH), empty)
        loss.backward()
        optimisers.step(i)
        ema.update()
        return {"loss": loss.item()}

    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        save(model.state_dict(), folder / "model.pt")
        scores = {}
        for variant in ("dev",) if stage == "dev" else ("fill", "kontext"):
            chosen = model if stage == "dev" or variant == "fill" else narrowed(model)
            save_transformer(RUNS / FILES[variant], chosen)
            scores |= {f"{variant}_{k}": v for k, v in look(variant, chosen, folder).items()}
        ema.swap()
        return scores

    run_stage(stage, {"model": model, "optimisers": optimisers, "ema": ema}, step, steps, report, report_every=480)


def look(variant: str, model: Transformer, folder: Path, count: int = 16) -> dict[str, float]:
    """A sheet of held-out samples and how many slots are right."""
    data, drawn, ae = Data(HELD_OUT), pictures(0, HELD_OUT), load_autoencoder(RUNS / FILES["ae"])
    data.look()
    torch.manual_seed(1)
    seen, said = (({k: v[:count] for k, v in part.items()}) for part in data.parts[0])
    said = {k: w[:, 0] if w.states.ndim == 4 else w[:] for k, w in said.items()}
    seen = {k: v if v.dtype == torch.bool else v.float() for k, v in seen.items()}
    if variant == "fill":
        batch = Batch(seen["filled"], said["filled"], fill_channels(seen["masked"], seen["mask"]))
        shown, truth = drawn.filled[:count] * ~drawn.mask[:count, None], drawn.filled[:count]
    elif variant == "kontext":
        batch = Batch(seen["after"], said["told"].cut(TOLD_TOKENS), reference=seen["before"])
        shown, truth = drawn.before[:count], drawn.after[:count]
    else:
        batch = Batch(seen["before"], said["before"])
        shown = truth = drawn.before[:count]
    guidance = {"dev": 3.5, "fill": 30.0, "kontext": 2.5}[variant]
    packed = sample(model, batch, guidance=guidance)
    with torch.no_grad():
        made = (ae.decode(unpack(packed, SIDE, SIDE)) + 1) / 2
    rows = [shown[:8] / 255, made[:8], truth[:8] / 255, shown[8:16] / 255, made[8:16], truth[8:16] / 255]
    contact_sheet(rows, folder / f"{variant}.png")
    wanted = [e.after if variant == "kontext" else e.before for e in drawn.edits[:count]]
    right = torch.tensor(
        [read(m.clamp(0, 1).permute(1, 2, 0).numpy()).right(s) for m, s in zip(made, wanted, strict=True)]
    ).float()
    scores = dict(zip(SLOTS, right.mean(0).tolist(), strict=True)) | {"all": right.prod(1).mean().item()}
    return scores | {"mse": F.mse_loss(packed, batch.target).item()}
