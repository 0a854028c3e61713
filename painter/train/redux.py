"""Redux: SigLIP and its projection learn to tell dev, in words of their own, what a picture shows. dev stays as it is.

First they learn to see and to write: from each of SigLIP's tokens every slot can be read, and of Redux' tokens the first ones
say what T5 says of the first word of a plain caption, and so on. Then what they say is right when dev takes the same way with
it as with a caption, and ends at the picture. All tokens have the same position for dev, and neighbours say nearly
the same: a few of the 729, each counted several times, are what all of them are, for the price of a caption.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flux_core.model.transformer import Transformer
from flux_core.packing import unpack
from flux_core.variants import VARIANTS
from painter.family import FILES, load_autoencoder, load_transformer
from painter.judges import read
from painter.language import plain_caption
from painter.redux import FILES as REDUX_FILES
from painter.redux import SIDE, TOKENS, VISION_WIDTH, new_redux, new_siglip, save_redux, save_siglip
from painter.scenes import SLOTS, Scene
from painter.tokens import t5_tokens
from painter.train.batches import Batch, Data, held_out
from painter.train.data import TRAINING, to_pixels
from painter.train.flow import guidance_weight, noisy, random_length, sample, silenced, velocity
from painter.train.loop import RUNS, Ema, Optimisers, contact_sheet, half_precision, run_stage
from painter.train.pairs import TEXT_TOKENS, Encoders, Words, pictures
from painter.train.text import VALUES
from painter.train.transformers import compiled

BATCH = 32
SIZES = [len(VALUES[slot]) for slot in SLOTS]
NOTHING = 2  # tokens of an empty prompt: its end, and a pad that stands for all pads
FEW = 81  # tokens of a picture in training
WORDLESS_SHARE = 0.7  # of the batches: the picture alone speaks
LISTENING, WRITTEN = 1000, 1100  # steps before dev listens, and until words are no longer given
PLAIN_SHARE = 0.2  # of the pictures: towards the picture itself, the others as with its caption


class Onlooker(nn.Module):
    """Looks at pictures (b, 3, h, w) in [-1, 1] and says what it sees, both in tokens (b, 729, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.siglip, self.redux, self.reader = new_siglip(), new_redux(), nn.Linear(VISION_WIDTH, sum(SIZES))

    def see(self, pixels: Tensor) -> Tensor:
        """SigLIP's tokens."""
        square = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
        return self.siglip(square).last_hidden_state

    def say(self, seen: Tensor) -> Tensor:
        """Redux' tokens, one for each of SigLIP's."""
        return self.redux.redux_down(F.silu(self.redux.redux_up(seen)))

    def misread(self, seen: Tensor, scenes: list[Scene]) -> Tensor:
        """Cross entropy of the slots, read from each token."""
        slots = torch.tensor([[VALUES[slot].index(getattr(scene, slot)) for slot in SLOTS] for scene in scenes])
        read, slots = self.reader(seen).flatten(0, 1).split(SIZES, dim=1), slots.repeat_interleave(seen.shape[1], 0)
        return sum(F.cross_entropy(each.float(), slots[:, i]) for i, each in enumerate(read)) / len(SIZES)


drawn_once = cache(pictures)


class Shown(Data):
    """Pairs with their pictures: what is seen, beside what is said of it."""

    def some_pictures(self, count: int) -> tuple[Tensor, list[Scene], Batch]:
        """Pictures in [-1, 1], what they show, and their latents with one of their captions."""
        shard, side = int(torch.randint(len(self.parts), ())), ("before", "after")[int(torch.randint(2, ()))]
        (latents, words), drawn = self.parts[shard], drawn_once(shard, self.part)
        which, wording = torch.randperm(len(drawn.edits))[:count], torch.randint(2, (count,))
        scenes = [getattr(drawn.edits[i], side) for i in which.tolist()]
        batch = Batch(latents[side][which].float(), words[side][which, wording])
        return to_pixels(getattr(drawn, side)[which]), scenes, batch


def miswritten(tokens: Tensor, places: Tensor, scenes: list[Scene], encoders: Encoders) -> Tensor:
    """How far these tokens, which stand at `places` among the 729, are from T5's of the words that are due there."""
    texts = [plain_caption(scene) for scene in scenes]
    lengths = (t5_tokens(texts, TEXT_TOKENS) != 0).sum(1, keepdim=True)
    due = encoders(texts).states.float().gather(1, (places * lengths // TOKENS)[..., None].expand_as(tokens))
    return F.mse_loss(tokens.float(), due)


def unlike(tokens: Tensor, dev: Transformer, told: Batch, empty: Words) -> Tensor:
    """The difference of dev's velocities with these tokens from those with a caption, or from the true ones."""
    count, (x, t, true) = len(tokens), noisy(told)
    plain, length = torch.rand(count) < PLAIN_SHARE, random_length()
    guidance = torch.where(plain, 1.0, 1 + 5 * torch.rand(count))
    wordless = torch.rand(()) < WORDLESS_SHARE
    said = told.said.cut(NOTHING) if wordless else told.said
    said = silenced(said, empty, torch.full((count,), bool(wordless)))
    with half_precision():
        with torch.no_grad():
            wanted = torch.where(plain[:, None, None], true, velocity(dev, x, t, told, guidance, length))
        shown = Batch(told.target, said, shown=tokens)
        weight = guidance_weight(guidance)[:, None, None]
        return ((velocity(dev, x, t, shown, guidance, length) - wanted) / weight).square().mean()


def train(steps: int = 2000) -> None:
    torch.manual_seed(0)
    onlooker, dev = Onlooker(), compiled(load_transformer(RUNS / FILES["dev"], "dev").requires_grad_(False))
    data, encoders = Shown(TRAINING), Encoders()
    empty = encoders([""])[:]
    matrices = [p for n, p in onlooker.named_parameters() if p.ndim == 2 and "position" not in n]
    rest = [p for p in onlooker.parameters() if not any(p is m for m in matrices)]
    optimisers, ema = Optimisers(matrices, rest, 2e-3, steps), Ema(onlooker)

    def step(i: int) -> dict[str, float]:
        if torch.rand(()) < 0.01:
            data.look()
        (drawn, scenes, told), places = data.some_pictures(BATCH), torch.randperm(TOKENS)[:FEW]
        with half_precision():
            seen = onlooker.see(drawn)[:, places]
            tokens = onlooker.say(seen)
            losses = {"misread": onlooker.misread(seen, scenes)}
        if i < WRITTEN:
            losses["miswritten"] = miswritten(tokens, places, scenes, encoders)
        if i >= LISTENING:
            losses["unlike"] = unlike(tokens, dev, told, empty)
        sum(losses.values()).backward()
        optimisers.step(i)
        ema.update()
        return {name: loss.item() for name, loss in losses.items()}

    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        save_siglip(RUNS / REDUX_FILES["siglip"], onlooker.siglip)
        save_redux(RUNS / REDUX_FILES["redux"], onlooker.redux)
        scores = look(onlooker, dev, empty, folder / "samples.png")
        ema.swap()
        return scores

    parts = {"model": onlooker, "optimisers": optimisers, "ema": ema}
    run_stage("redux", parts, step, steps, report, report_every=300)


@torch.no_grad()
def look(onlooker: Onlooker, dev: Transformer, empty: Words, path: Path, count: int = 32) -> dict[str, float]:
    """A sheet of variations of held-out pictures, and how many slots are those of the picture."""
    held, seen, said = held_out(count)
    before = held.before[:count]
    wordless = silenced(said["before"].cut(NOTHING), empty, torch.ones(count, dtype=torch.bool))
    batch = Batch(seen["before"], wordless, shown=onlooker.say(onlooker.see(to_pixels(before))))
    packed = sample(dev, batch, 16, VARIANTS["dev"].guidance, shifted=True)
    made = (load_autoencoder(RUNS / FILES["ae"]).decode(unpack(packed, 16, 16)) + 1) / 2
    contact_sheet([rows[i : i + 8] for i in range(0, 32, 8) for rows in (before / 255, made)], path)
    right = torch.tensor([
        read(m.clamp(0, 1).permute(1, 2, 0).numpy()).right(e.before) for m, e in zip(made, held.edits[:count], strict=True)
    ]).float()  # fmt: skip
    return dict(zip(SLOTS, right.mean(0).tolist(), strict=True)) | {"all": right.prod(1).mean().item()}
