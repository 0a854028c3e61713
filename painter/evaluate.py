"""`python -m painter.evaluate [--count 64] [--folder painter/weights]`: scores on held-out scenes as JSON and markdown."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from painter.judges import read
from painter.language import KINDS, LANDSCAPE_ONLY, caption, edit, plain_caption
from painter.masks import around_body, region
from painter.painter import Painter
from painter.scenes import SLOTS, Picture, Scene, draw, random_scene

SEED = 77_001  # of no training scene
BATCH = 8
Scores = dict[str, float]


def scenes(count: int, seed: int = SEED) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng) for _ in range(count)]


def as_tensor(pictures: list[Picture]) -> Tensor:
    """(n, 3, 128, 128)"""
    return torch.from_numpy(np.stack([p.image for p in pictures])).permute(0, 3, 1, 2).float()


def right(made: Tensor, wanted: list[Scene]) -> Tensor:
    """(n, 7) which slots the judges read as wanted."""
    images = made.permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([read(i).right(s) for i, s in zip(images, wanted, strict=True)])).float()


def psnr(made: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Per picture over the pixels `where` (n, 128, 128) is true."""
    where = where[:, None].expand_as(made)
    error = torch.stack([(m - t)[w].square().mean() for m, t, w in zip(made, truth, where, strict=True)])
    return -10 * error.clamp(min=1e-9).log10()


def crispness(pictures: Tensor) -> Tensor:
    """Per picture the 95th percentile of the gradient where mountains are."""
    rows = pictures[:, :, 34:84]
    gradient = rows.diff(dim=2)[..., :-1].square() + rows.diff(dim=3)[:, :, :-1].square()
    return gradient.sum(1).sqrt().flatten(1).quantile(0.95, dim=1)


def batches(count: int) -> Iterator[slice]:
    return (slice(i, min(i + BATCH, count)) for i in range(0, count, BATCH))


def by_slot(rights: Tensor) -> Scores:
    return dict(zip(SLOTS, rights.mean(0).tolist(), strict=True)) | {"all": rights.prod(1).mean().item()}


def autoencoder(painter: Painter, count: int) -> Scores:
    truth = as_tensor([draw(s) for s in scenes(count)])
    back = torch.cat([painter.decode(painter.encode(truth[part])) for part in batches(count)])
    everywhere = torch.ones(count, *truth.shape[2:], dtype=torch.bool)
    return {"psnr": psnr(back, truth, everywhere).mean().item(), **by_slot(right(back, scenes(count)))}


def text_to_image(painter: Painter, count: int, variant: str = "dev", steps: int = 16) -> Scores:
    wanted = scenes(count)
    made = torch.cat([
        painter.paint(variant, [plain_caption(s) for s in wanted[part]], steps, seed=part.start) for part in batches(count)
    ])  # fmt: skip
    truth = as_tensor([draw(s) for s in wanted])
    ceiling = torch.cat([painter.decode(painter.encode(truth[part])) for part in batches(count)])
    edges = crispness(made).mean() / crispness(ceiling).mean()
    return by_slot(right(made, wanted)) | {"edges": edges.item()}


def fill(painter: Painter, count: int) -> Scores:
    rng = np.random.default_rng(SEED)
    scores: Scores = {}
    for name, task in FILL_TASKS.items():
        tasks = [task(scene, rng) for scene in scenes(count)]
        before, truth = as_tensor([t[0] for t in tasks]), as_tensor([t[1] for t in tasks])
        masks, prompts = torch.from_numpy(np.stack([t[2] for t in tasks])), [t[3] for t in tasks]
        made = torch.cat([
            painter.paint("fill", prompts[part], seed=part.start, extra=painter.fill_channels(before[part], masks[part]))
            for part in batches(count)
        ])  # fmt: skip
        pasted = torch.where(masks[:, None], made, before)
        rights = right(pasted, [t[4] for t in tasks])
        scores[f"{name}: psnr"] = psnr(made, truth, masks).median().item()
        scores[f"{name}: seam"] = (seam(pasted, masks) / seam(truth, masks).clamp(min=1e-3)).median().item()
        if name == "sun":
            scores["sun: gone"] = rights[:, SLOTS.index("body")].mean().item()
        if name == "sky":
            scores["sky: as told"] = rights[:, SLOTS.index("sky")].mean().item()
        scores[f"{name}: slots"] = rights.mean().item()
    return scores


def seam(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean step of colour across the masks' edges, per picture."""
    edge = (masks[:, :, 1:] != masks[:, :, :-1]).float(), (masks[:, 1:] != masks[:, :-1]).float()
    steps = pictures.diff(dim=3).abs().mean(1), pictures.diff(dim=2).abs().mean(1)
    crossed = sum((s * e).flatten(1).sum(1) for s, e in zip(steps, edge, strict=True))
    return crossed / sum(e.flatten(1).sum(1) for e in edge).clamp(min=1)


Task = tuple[Picture, Picture, np.ndarray, str, Scene]  # before, truth, mask, prompt, the scene that is right


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((128, 128), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def fill_sky_box(scene: Scene, rng: np.random.Generator) -> Task:
    scene = Scene(**(scene.__dict__ | {"body": "none", "time": "day" if scene.time == "night" else scene.time}))
    picture = draw(scene)
    return picture, picture, box(2, int(rng.integers(4, 70)), 26, 50), caption(scene, rng)[0], scene


def fill_ground_box(scene: Scene, rng: np.random.Generator) -> Task:
    picture = draw(scene)
    return picture, picture, box(100, int(rng.integers(4, 70)), 24, 50), caption(scene, rng)[0], scene


def fill_border(scene: Scene, rng: np.random.Generator) -> Task:
    picture, mask = draw(scene), box(0, 0, 128, 128)
    mask[24:104, 24:104] = False
    return picture, picture, mask, caption(scene, rng)[0], scene


def fill_sun(scene: Scene, rng: np.random.Generator) -> Task:
    scene = Scene(**(scene.__dict__ | {"body": scene.light}))
    before, gone = draw(scene), Scene(**(scene.__dict__ | {"body": "none"}))
    return before, draw(gone), around_body(before, rng), LANDSCAPE_ONLY[0], gone


def fill_sky(scene: Scene, rng: np.random.Generator) -> Task:
    told = edit(scene, "sky", rng)
    before = draw(told.before)
    return before, draw(told.after), region(before, ("sky", "body")), caption(told.after, rng)[0], told.after


FILL_TASKS: dict[str, Callable[[Scene, np.random.Generator], Task]] = {
    "sky box": fill_sky_box, "ground box": fill_ground_box, "border": fill_border, "sun": fill_sun, "sky": fill_sky,
}  # fmt: skip


def kontext(painter: Painter, count: int) -> Scores:
    rng = np.random.default_rng(SEED)
    scores: Scores = {}
    happened_all, kept_all, quality = [], [], []
    for kind in KINDS:
        edits = [edit(scene, kind, rng) for scene in scenes(count)]
        before, after = (
            as_tensor([draw(s) for s in side]) for side in ([e.before for e in edits], [e.after for e in edits])
        )
        made = torch.cat([
            painter.paint("kontext", [e.instruction for e in edits[part]], seed=part.start, reference=painter.encode(before[part]))
            for part in batches(count)
        ])  # fmt: skip
        rights = right(made, [e.after for e in edits])
        told = torch.tensor([[getattr(e.before, s) != getattr(e.after, s) for s in SLOTS] for e in edits])
        happened = (rights + ~told).clamp(max=1).prod(1)
        kept = (rights * ~told).sum(1) / (~told).sum(1)
        same = (before - after).abs().amax(1) < 2 / 255
        scores[f"{kind}: happened"] = happened.mean().item()
        scores[f"{kind}: kept"] = kept.mean().item()
        scores[f"{kind}: psnr"] = psnr(made, before, same).nanmedian().item()
        happened_all.append(happened), kept_all.append(kept), quality.append(psnr(made, before, same))
    return scores | {
        "happened": torch.cat(happened_all).mean().item(),
        "kept": torch.cat(kept_all).mean().item(),
        "psnr unchanged": torch.cat(quality).nanmedian().item(),
    }


SECTIONS: dict[str, Callable[[Painter, int], Scores]] = {
    "ae": autoencoder, "dev": text_to_image, "fill": fill, "kontext": kontext,
}  # fmt: skip


def markdown(scores: dict[str, Scores]) -> str:
    rows = [f"| {part} | {name} | {value:.3f} |" for part, some in scores.items() for name, value in some.items()]
    return "\n".join(["| part | score | value |", "|---|---|---|", *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="held-out samples per score")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "scores")
    parser.add_argument("--parts", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    arguments = parser.parse_args()
    painter = Painter(arguments.folder)
    parts = [part for part in arguments.parts if part == "ae" or part in painter.models]
    scores = {part: SECTIONS[part](painter, arguments.count) for part in parts}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(scores, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(scores))
    print(markdown(scores))


if __name__ == "__main__":
    main()
