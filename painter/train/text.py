"""The text encoders: T5 and CLIP learn to say which slots a sentence names, from its words alone, and are then frozen.

T5 is padded without a mask wherever FLUX runs. So lengths vary while it trains, and what it returns for a pad is pulled
to one constant vector: the transformer can learn to ignore a constant, however often it is repeated.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from painter.family import FILES, TEXT_WIDTH, new_clip, new_t5, save_clip, save_t5
from painter.language import KINDS, LANDSCAPE_ONLY, caption, edit
from painter.scenes import BODIES, GROUNDS, SKIES, TIMES, random_scene
from painter.tokens import clip_tokens, t5_tokens
from painter.train.data import HELD_OUT, TRAINING
from painter.train.loop import RUNS, Ema, Optimisers, run_stage

VALUES = {"time": TIMES, "sky": SKIES, "body": BODIES, "ridges": (1, 2, 3), "snow": (False, True),
          "lake": (False, True), "ground": GROUNDS, "kind": ("caption", *KINDS)}  # fmt: skip
END = 49407  # CLIP's end token
LENGTHS = (48, 64, 96, 256)


def sentence(rng: np.random.Generator) -> tuple[str, dict[str, int]]:
    """A caption or an instruction, and for each head what it says: 0 is nothing, 1 + i is VALUES[head][i]."""
    scene, choice = random_scene(rng), rng.random()
    if choice < 0.03:
        text = LANDSCAPE_ONLY[rng.integers(len(LANDSCAPE_ONLY))]
        return text, {"body": 1 + BODIES.index("none"), "kind": 1}
    if choice < 0.6:
        text, named = caption(scene, rng, drop=float(rng.choice([0.0, 0.15, 0.5])))
        return text, {"kind": 1} | {slot: 1 + VALUES[slot].index(asdict(scene)[slot]) for slot in named}
    told = edit(scene, str(rng.choice(KINDS)), rng)
    before, after = asdict(told.before), asdict(told.after)
    said = {
        slot: 1 + VALUES[slot].index(after[slot]) for slot in VALUES if slot != "kind" and before[slot] != after[slot]
    }
    if told.kind == "lake to land":
        said["ground"] = 1 + GROUNDS.index(told.after.ground)
    return told.instruction, said | {"kind": 1 + VALUES["kind"].index(told.kind)}


def sentences(count: int, part: int) -> tuple[list[str], Tensor]:
    """Texts, and (count, heads) what they say."""
    rng = np.random.default_rng([part, 7])
    pairs = [sentence(rng) for _ in range(count)]
    return [text for text, _ in pairs], torch.tensor([[said.get(head, 0) for head in VALUES] for _, said in pairs])


class Vocabulary:
    """The few words in use: only their rows are trained, all others of the released size are left zero."""

    def __init__(self, tokens: Tensor, pad: int):
        self.used = tokens.unique()
        self.pad = pad

    def table(self, std: float) -> nn.Embedding:
        table = nn.Embedding(len(self.used), TEXT_WIDTH)
        nn.init.normal_(table.weight, std=std)
        return table

    def rows(self, tokens: Tensor) -> Tensor:
        """Rows of the small table; words outside it count as pads."""
        rows = torch.searchsorted(self.used, tokens).clamp(max=len(self.used) - 1)
        pad = torch.searchsorted(self.used, torch.tensor(self.pad))
        return torch.where(self.used[rows] == tokens, rows, pad)

    @torch.no_grad()
    def whole(self, small: nn.Module, full: nn.Module) -> nn.Module:
        """`full` with everything from `small`, its table's rows where they belong."""
        table = torch.zeros_like(full.get_input_embeddings().weight)
        table[self.used] = small.get_input_embeddings().weight
        names = {n for n, t in full.state_dict().items() if t.shape == table.shape}
        full.load_state_dict({n: table if n in names else t for n, t in small.state_dict().items()})
        return full


def pooled(clip: nn.Module, tokens: Tensor, vocabulary: Vocabulary) -> Tensor:
    """CLIP's state at the first end token, (batch, width)."""
    states = clip(input_ids=vocabulary.rows(tokens)).last_hidden_state
    ends = (tokens == END).int().argmax(1)
    return states[torch.arange(len(tokens)), ends]


class Reader(nn.Module):
    """Linear read-outs of what a sentence says, one from CLIP's pooled vector and one from T5's mean over words."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [1 + len(values) for values in VALUES.values()]
        self.from_clip, self.from_t5 = (nn.Linear(TEXT_WIDTH, sum(self.sizes)) for _ in range(2))

    def loss(self, logits: Tensor, said: Tensor) -> Tensor:
        return sum(F.cross_entropy(part, said[:, i]) for i, part in enumerate(logits.split(self.sizes, dim=1)))

    def right(self, logits: Tensor, said: Tensor) -> Tensor:
        """(batch, heads)"""
        return torch.stack([part.argmax(1) for part in logits.split(self.sizes, dim=1)], dim=1) == said


def train(steps: int = 1000, batch: int = 48, pool: int = 12_000) -> None:
    torch.manual_seed(0)
    texts, said = sentences(pool, TRAINING)
    words, clip_words = t5_tokens(texts, max(LENGTHS)), clip_tokens(texts)
    held_texts, held_said = sentences(1000, HELD_OUT)
    held_words, held_clip_words = t5_tokens(held_texts, 256), clip_tokens(held_texts)
    vocabulary, clip_vocabulary = Vocabulary(words, 0), Vocabulary(clip_words, END)

    t5, clip, reader = new_t5(), new_clip(), Reader()
    t5.set_input_embeddings(vocabulary.table(0.5))
    clip.set_input_embeddings(clip_vocabulary.table(0.1))
    models = nn.ModuleList([t5, clip, reader])
    matrices = [p for n, p in models.named_parameters() if p.ndim == 2 and "layer" in n and "bias" not in n]
    rest = [p for p in models.parameters() if not any(p is m for m in matrices)]
    optimisers, ema = Optimisers(matrices, rest, 2e-3, steps), Ema(models, 0.99)

    constant = nn.functional.normalize(torch.randn(TEXT_WIDTH), dim=0) * TEXT_WIDTH**0.5

    def read(words: Tensor, clip_words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, real = t5(input_ids=vocabulary.rows(words)).last_hidden_state, (words != 0)[..., None]
        mean = (states * real).sum(1) / real.sum(1)
        pads = ((states - constant).square() * ~real).sum() / ((~real).sum() * TEXT_WIDTH).clamp(min=1)
        return reader.from_t5(mean), reader.from_clip(pooled(clip, clip_words, clip_vocabulary)), pads

    def step(i: int) -> dict[str, float]:
        length = LENGTHS[int(torch.multinomial(torch.tensor([0.5, 0.3, 0.1, 0.1]), 1))]
        chosen = torch.randint(pool, (batch if length < 256 else batch // 2,))
        by_t5, by_clip, pads = read(words[chosen, :length], clip_words[chosen, :56])
        losses = reader.loss(by_t5, said[chosen]), reader.loss(by_clip, said[chosen])
        (sum(losses) + 2 * pads).backward()
        optimisers.step(i)
        ema.update()
        return {"t5": losses[0].item(), "clip": losses[1].item(), "pads": pads.item()}

    @torch.no_grad()
    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        by_t5, by_clip, pads = read(held_words[:256], held_clip_words[:256])
        save_t5(RUNS / FILES["t5"], vocabulary.whole(t5, new_t5()))
        save_clip(RUNS / FILES["clip"], clip_vocabulary.whole(clip, new_clip()))
        ema.swap()
        return {
            "t5_right": reader.right(by_t5, held_said[:256]).float().mean().item(),
            "clip_right": reader.right(by_clip, held_said[:256]).float().mean().item(),
            "pads": pads.item(),
        }

    run_stage("text", {"models": models, "optimisers": optimisers, "ema": ema}, step, steps, report, report_every=120)
