"""What each member of the family learns from: a clean picture, what is said about it, and what else it is shown."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flux_core.conditioning import mask_to_cells
from flux_core.packing import pack
from painter.train.data import HELD_OUT
from painter.train.loop import RUNS
from painter.train.pairs import Pictures, Words, latents, pictures, words

TOLD_TOKENS = 20  # as pairs.TEXT_TOKENS, for instructions, which are short


@dataclass
class Batch:
    """Clean target (b, 64, 64), what is said, Fill's or a control model's channels, a reference (b, 64, 64).

    shown: what Redux says of a picture, (b, n, 64); fewer than its 729 tokens stand for all of them.
    """

    target: Tensor
    said: Words
    extra: Tensor | None = None
    reference: Tensor | None = None
    shown: Tensor | None = None


Latents = dict[str, Tensor]
Said = dict[str, Words]


def text_to_image(seen: Latents, said: Said, side: str = "before") -> Batch:
    return Batch(seen[side], said[side])


def fill(seen: Latents, said: Said) -> Batch:
    return Batch(seen["filled"], said["filled"], extra=fill_channels(seen["masked"], seen["mask"]))


def fill_channels(masked: Tensor, mask: Tensor) -> Tensor:
    """Packed masked picture (b, 64, 64) and pixel mask (b, 128, 128) -> Fill's (b, 64, 320)."""
    return torch.cat([masked, pack(mask_to_cells(mask[:, None].float()))], dim=-1)


def kontext(seen: Latents, said: Said) -> Batch:
    """The edit as told, the picture before it as the reference."""
    return Batch(seen["after"], said["told"].cut(TOLD_TOKENS), reference=seen["before"])


def canny(seen: Latents, said: Said) -> Batch:
    return Batch(seen["before"], said["before"], extra=seen["canny"])


def depth(seen: Latents, said: Said) -> Batch:
    return Batch(seen["before"], said["before"], extra=seen["depth"])


class Data:
    """The shards of pairs that are there; grows while more are being made."""

    def __init__(self, part: int) -> None:
        self.part, self.parts = part, {}
        self.look()

    def look(self) -> None:
        shard = len(self.parts)
        while all((RUNS / "pairs" / f"{kind}_{self.part}_{shard}.pt").exists() for kind in ("words", "latents")):
            self.parts[shard] = latents(shard, None, self.part), words(shard, None, self.part)
            shard += 1

    def some(self, count: int) -> tuple[Latents, Said]:
        """Latents and words of `count` random edits; captions in one random wording."""
        seen, said = self.parts[int(torch.randint(len(self.parts), ()))]
        which = torch.randperm(len(seen["before"]))[:count]
        return picked(seen, said, which, torch.randint(2, (count,)))


def picked(seen: Latents, said: Said, which: Tensor, wording: Tensor) -> tuple[Latents, Said]:
    """Those edits of a shard, captions in those wordings, as float32."""
    chosen = {k: v[which] if v.dtype == torch.bool else v[which].float() for k, v in seen.items()}
    return chosen, {k: w[which, wording] if w.states.ndim == 4 else w[which] for k, w in said.items()}


def held_out(count: int) -> tuple[Pictures, Latents, Said]:
    """The first edits of the shard that no stage learns from."""
    seen, said = Data(HELD_OUT).parts[0]
    which = torch.arange(count)
    return pictures(0, HELD_OUT), *picked(seen, said, which, torch.zeros_like(which))
