"""Training data for every flow stage: edits drawn before and after, a mask, edges and depth for each, words and latents.

No scene in it is one that `scenes.held_out` keeps for the scores. A shard is 250 edits. Pictures, words and latents of a shard are made once and kept in runs/, so that a stage can begin
when the first shards are there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flux_core.canny import canny_edges
from flux_core.packing import pack
from painter.autoencoder import Autoencoder
from painter.family import FILES, load_autoencoder, load_clip, load_t5
from painter.language import KINDS, LANDSCAPE_ONLY, Edit, caption, edit
from painter.masks import around_body, random_mask, region
from painter.scenes import draw, held_out, random_scene
from painter.tokens import clip_tokens, t5_tokens
from painter.train.data import HELD_OUT, TRAINING, to_pixels, to_tensor
from painter.train.loop import RUNS, half_precision

SHARD = 250
TEXT_TOKENS = 48  # the longest caption; the last of them is always a pad and stands for all further pads
CAPTIONS = 2


def save(data: object, path: Path) -> None:
    """A stage that looks for new shards never finds half a file."""
    torch.save(data, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@dataclass(frozen=True)
class Pictures:
    """before, after and the target of the mask: (250, 3, 128, 128) bytes; mask and depth of before (250, 128, 128)."""

    edits: list[Edit]
    before: Tensor
    after: Tensor
    filled: Tensor
    mask: Tensor
    depth: Tensor


def draw_edit(told: Edit, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """before, after, filled, mask, depth: a masked sky or sun is filled as told, any other mask as it was."""
    before, after = draw(told.before), draw(told.after)
    if told.kind == "sky":
        mask = region(before, ("sky", "body"))
    elif told.kind == "remove body":
        mask = around_body(before, rng)
    else:
        return before.image, after.image, before.image, random_mask(before, rng), before.depth
    return before.image, after.image, np.where(mask[..., None], after.image, before.image), mask, before.depth


def new_edit(kind: str, rng: np.random.Generator) -> Edit:
    """An edit between two scenes that training may see."""
    while True:
        told = edit(random_scene(rng), kind, rng)
        if not held_out(told.before) and not held_out(told.after):
            return told


def pictures(shard: int, part: int = TRAINING) -> Pictures:
    path = RUNS / "pairs" / f"pictures_{part}_{shard}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([part, shard])
        edits = [new_edit(KINDS[i % len(KINDS)], rng) for i in range(SHARD)]
        drawn = [draw_edit(told, rng) for told in tqdm(edits, desc=f"drawing shard {shard}")]
        before, after, filled, mask, depth = zip(*drawn, strict=True)
        stacked = [torch.stack([to_tensor(image) for image in images]) for images in (before, after, filled)]
        depths = torch.from_numpy((np.stack(depth) * 255).round().astype(np.uint8))
        save(Pictures(edits, *stacked, torch.from_numpy(np.stack(mask)), depths), path)
    return torch.load(path, weights_only=False)


@dataclass(frozen=True)
class Words:
    """T5 states (..., 48, 64) in half precision and pooled CLIP (..., 64)."""

    states: Tensor
    pooled: Tensor

    def __getitem__(self, index: object) -> "Words":
        return Words(self.states[index].float(), self.pooled[index])

    def cut(self, tokens: int) -> "Words":
        """The first tokens only: enough for what is short."""
        return Words(self.states[:, :tokens], self.pooled)


class Encoders:
    """The frozen text encoders."""

    def __init__(self) -> None:
        self.t5, self.clip = load_t5(RUNS / FILES["t5"]), load_clip(RUNS / FILES["clip"])

    @torch.no_grad()
    def __call__(self, texts: list[str], length: int = 256) -> Words:
        """Padded to `length` while T5 runs, as in ComfyUI, then cut to TEXT_TOKENS."""
        states, pooled = [], []
        for start in range(0, len(texts), 25):
            some = texts[start : start + 25]
            whole = self.t5(input_ids=t5_tokens(some, length)).last_hidden_state
            states.append(torch.cat([whole[:, : TEXT_TOKENS - 1], whole[:, -1:]], dim=1).half())
            pooled.append(self.clip(input_ids=clip_tokens(some)).pooler_output)
        return Words(torch.cat(states), torch.cat(pooled))


def words(shard: int, encoders: Encoders, part: int = TRAINING) -> dict[str, Words]:
    """before, after: (250, 2 wordings, ...); told (instructions), filled (captions for the masks): (250, ...)."""
    path = RUNS / "pairs" / f"words_{part}_{shard}.pt"
    if not path.exists():
        rng = np.random.default_rng([part, shard, 1])
        edits = pictures(shard, part).edits

        def captions(scenes: list) -> Words:
            texts = [caption(s, rng, drop=float(rng.choice([0, 0, 0.15])))[0] for s in scenes for _ in range(CAPTIONS)]
            said = encoders(texts)
            return Words(said.states.unflatten(0, (-1, CAPTIONS)), said.pooled.unflatten(0, (-1, CAPTIONS)))

        said = {"before": captions([e.before for e in edits]), "after": captions([e.after for e in edits])}
        said["told"] = encoders([e.instruction for e in edits])
        said["filled"] = encoders([fill_prompt(e, rng) for e in edits])
        save(said, path)
    return torch.load(path, weights_only=False)


def fill_prompt(told: Edit, rng: np.random.Generator) -> str:
    """What stands in the whole picture, or for a masked sun just that nothing but landscape is wanted."""
    if told.kind == "remove body" and rng.random() < 0.6:
        return LANDSCAPE_ONLY[rng.integers(len(LANDSCAPE_ONLY))]
    scene = told.after if told.kind in ("sky", "remove body") else told.before
    if scene.body == "none" and told.kind != "sky" and rng.random() < 0.15:
        return LANDSCAPE_ONLY[rng.integers(len(LANDSCAPE_ONLY))]
    return caption(scene, rng)[0]


@torch.no_grad()
def encode(model: Autoencoder, pictures: Tensor) -> Tensor:
    """Pictures as bytes or in [-1, 1] -> packed latents (n, 64, 64) in half precision."""
    parts = []
    for some in pictures.split(25):
        pixels = to_pixels(some) if some.dtype == torch.uint8 else some
        with half_precision():
            latent = model.encode(pixels.contiguous(memory_format=torch.channels_last))
        parts.append(pack(latent.float()).half())
    return torch.cat(parts)


def edges(drawn: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) as bytes -> their Canny edges (n, h, w), 0 or 255."""
    return canny_edges(drawn.permute(0, 2, 3, 1) / 255) * 255


def as_control(grey: Tensor) -> Tensor:
    """(n, h, w) from 0 to 255 -> bytes (n, 3, h, w), as a control picture is shown to the model."""
    return grey.byte()[:, None].expand(-1, 3, -1, -1)


def latents(shard: int, model: Autoencoder, part: int = TRAINING) -> dict[str, Tensor]:
    """before, after, filled, masked, and edges and depth of before: (250, 64, 64); mask (250, 128, 128)."""
    path = RUNS / "pairs" / f"latents_{part}_{shard}.pt"
    if not path.exists():
        drawn = pictures(shard, part)
        hidden = to_pixels(drawn.filled) * ~drawn.mask[:, None]
        save({
            "canny": encode(model, as_control(edges(drawn.before))),
            "depth": encode(model, as_control(drawn.depth)),
            "before": encode(model, drawn.before),
            "after": encode(model, drawn.after),
            "filled": encode(model, drawn.filled),
            "masked": encode(model, hidden),
            "mask": drawn.mask,
        }, path)  # fmt: skip
    return torch.load(path)


def train(steps: int = 40) -> None:
    """Make the held-out shard and the first `steps` shards for training; what is there already is kept."""
    encoders, model = Encoders(), load_autoencoder(RUNS / FILES["ae"]).to(memory_format=torch.channels_last)
    for part, shard in [(TRAINING, 0), (HELD_OUT, 0), *((TRAINING, k) for k in range(1, steps))]:
        pictures(shard, part)
        words(shard, encoders, part)
        latents(shard, model, part)
