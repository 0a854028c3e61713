"""`python -m painter.evaluate`: scores of the family on held-out scenes, made by our nodes on a real server.

Writes a table as JSON and markdown, with the goal of each score, and sheets of what was painted.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flux_core.canny import canny_edges
from painter import tasks
from painter.language import KINDS, plain_caption
from painter.painter import WEIGHTS, Job, Painter, painting
from painter.scenes import SLOTS, Array, draw
from painter.scores import crispness, depth_order, edge_f1, psnr, seam, slots_right
from painter.train.loop import contact_sheet

RUNS = Path(__file__).parent / "runs"


@dataclass(frozen=True)
class Score:
    """goal: the least that is wanted, or the most where `at_most`."""

    part: str
    what: str
    value: float
    goal: float | None = None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal if self.at_most else self.value >= self.goal


class Evaluation:
    """Scores collected part by part."""

    def __init__(self, painter: Painter, count: int, sheets: Path) -> None:
        self.painter, self.count, self.sheets = painter, count, sheets
        self.scores: list[Score] = []
        self.part = ""

    def run(self, part: str) -> None:
        self.part = part
        PARTS[part](self)

    def add(self, what: str, value: float, goal: float | None = None, at_most: bool = False) -> None:
        self.scores.append(Score(self.part, what, float(value), goal, at_most))

    def sheet(self, name: str, *rows: Array, columns: int = 10) -> None:
        """The first pictures of each row, below each other, one block after the other."""
        blocks = [row[i : i + columns] for i in (0, columns) for row in rows]
        pictures = [
            torch.from_numpy(np.asarray(block)).permute(0, 3, 1, 2) for block in blocks if len(block) == columns
        ]
        if pictures:
            self.sheets.mkdir(parents=True, exist_ok=True)
            contact_sheet(pictures, self.sheets / f"{name.replace(' ', '_')}.png")


def autoencoder(e: Evaluation) -> None:
    truth = np.stack([draw(scene).image for scene in tasks.scenes(e.count)])
    back = e.painter.round_trips(truth)
    e.add("round trip, dB", psnr(back, truth, np.ones(truth.shape[:3], bool)).mean(), 33)
    e.add("all seven slots still read", slots_right(back, tasks.scenes(e.count)).all(1).mean())
    e.sheet("ae", truth, back)


def text_to_image(e: Evaluation, variant: str, goals: dict[str, float], seven: float, edges: float | None) -> None:
    wanted = tasks.scenes(e.count)
    made = e.painter.paint([Job(variant, plain_caption(s), 1000 + i) for i, s in enumerate(wanted)], variant)
    right = slots_right(made, wanted)
    for slot, share in zip(SLOTS, right.mean(0), strict=True):
        e.add(f"{slot} right", share, goals.get(slot))
    e.add("all seven right", right.all(1).mean(), seven)
    e.add("all seven right, combinations never shown", right[1::2].all(1).mean())
    truth = e.painter.round_trips([draw(scene).image for scene in wanted])
    e.add("edges, share of the truth's after a round trip", crispness(made).mean() / crispness(truth).mean(), edges)
    e.sheet(variant, truth, made)


def dev(e: Evaluation) -> None:
    goals = dict.fromkeys(("time", "sky", "lake", "ground"), 0.98) | {"body": 0.97, "snow": 0.95, "ridges": 0.85}
    text_to_image(e, "dev", goals, 0.85, 0.6)


def schnell(e: Evaluation) -> None:
    text_to_image(e, "schnell", {}, 0.8, None)


def fill(e: Evaluation) -> None:
    goals = {"sky box": 34, "ground box": 34, "shore box": None, "border": 24}
    rights = []
    for kind in tasks.FILLS:
        asked = tasks.fills(kind, e.count)
        before, truth, masks = (
            np.stack(all_of) for all_of in zip(*((t.before, t.truth, t.mask) for t in asked), strict=True)
        )
        jobs = [Job("fill", t.prompt, 2000 + i, shown=t.before, mask=t.mask) for i, t in enumerate(asked)]
        painted, back = e.painter.paint(jobs, f"fill {kind}"), e.painter.round_trips(truth)
        made, ceiling = (np.where(masks[..., None], inside, before) for inside in (painted, back))
        right = slots_right(made, [t.scene for t in asked])
        rights.append(right)
        if kind in goals:
            e.add(f"{kind}, dB", np.median(psnr(made, truth, masks)), goals[kind])
        if kind == "sun":
            e.add("masked sun gone", right[:, SLOTS.index("body")].mean(), 0.95)
        if kind == "sky":
            e.add("repainted sky as told", right[:, SLOTS.index("sky")].mean(), 0.97)
        if kind != "sky":  # there the edge is the horizon, with another sky behind it
            yardstick = seam(ceiling, masks).mean()
            e.add(
                f"{kind}, seam as painted, against a pasted round trip's",
                seam(painted, masks).mean() / yardstick,
                2,
                at_most=True,
            )
            e.add(f"{kind}, seam when pasted", seam(made, masks).mean() / yardstick)
        e.add(f"{kind}, slots right", right.mean(), 0.95)
        e.sheet(f"fill {kind}", np.where(masks[..., None], 0.5, before), made, truth)
    e.add("slots right", np.concatenate(rights).mean(), 0.95)


def kontext(e: Evaluation) -> None:
    happened, kept, clean = [], [], []
    for kind in KINDS:
        asked = tasks.edits(kind, e.count)
        before, after = (
            np.stack([draw(s).image for s in side]) for side in zip(*((t.before, t.after) for t in asked), strict=True)
        )
        jobs = [
            Job("kontext", t.instruction, 3000 + i, shown=b) for i, (t, b) in enumerate(zip(asked, before, strict=True))
        ]
        made = e.painter.paint(jobs, f"kontext {kind}")
        right, told = slots_right(made, [t.after for t in asked]), np.stack([tasks.told_slots(t) for t in asked])
        same = (np.abs(before - after) < 2 / 255).all(-1)
        happened.append((right | ~told).all(1))
        kept.append(np.where(told, np.nan, right))
        clean.append(psnr(made, before, same))
        e.add(f"{kind}, happened", happened[-1].mean(), 0.95)
        e.add(f"{kind}, other slots kept", np.nanmean(kept[-1]))
        if np.isfinite(clean[-1]).any():  # another time of day leaves no pixel as it was
            e.add(f"{kind}, unchanged pixels, dB", np.nanmedian(clean[-1]))
        e.sheet(f"kontext {kind}", before, made, after)
    e.add("happened", np.concatenate(happened).mean(), 0.97)
    e.add("other slots kept", np.nanmean(np.concatenate(kept)), 0.97)
    e.add("unchanged pixels, dB", np.nanmedian(np.concatenate(clean)), 27)
    chained(e)


def chained(e: Evaluation) -> None:
    asked = tasks.chains(e.count)
    before = np.stack([draw(first.before).image for first, _ in asked])
    made = e.painter.paint([
        Job("kontext", first.instruction, 4000 + 2 * i, shown=picture, then=second.instruction)
        for i, ((first, second), picture) in enumerate(zip(asked, before, strict=True))
    ], "kontext chained")  # fmt: skip
    right = slots_right(made, [second.after for _, second in asked])
    told = np.stack([tasks.told_slots(first) | tasks.told_slots(second) for first, second in asked])
    e.add("two edits in a row, both there", (right | ~told).all(1).mean(), 0.93)
    e.sheet("kontext chained", before, made, np.stack([draw(second.after).image for _, second in asked]))


def canny(e: Evaluation) -> None:
    wanted = tasks.scenes(e.count)
    truth = np.stack([draw(scene).image for scene in wanted])
    edges = canny_edges(torch.from_numpy(truth)).numpy()
    maps = np.repeat(edges[..., None], 3, axis=-1)
    jobs = [Job("canny", plain_caption(s), 5000 + i, shown=maps[i]) for i, s in enumerate(wanted)]
    made = e.painter.paint(jobs, "canny")
    told = [Job("dev", plain_caption(s), 5000 + i) for i, s in enumerate(wanted)]
    free = e.painter.paint([replace(job, prompt="") for job in told], "neither edges nor words")
    with_map, without = edge_f1(made, edges).mean(), edge_f1(free, edges).mean()
    e.add("F1 of edges within 2 pixels", with_map, 0.7)
    e.add("F1 of dev with neither map nor words", without)
    e.add("how many times that", with_map / without, 2)
    e.add("F1 of dev with the same words", edge_f1(e.painter.paint(told, "words alone"), edges).mean())
    e.add("slots right", slots_right(made, wanted).mean())
    e.sheet("canny", maps, made, truth)


def depth(e: Evaluation) -> None:
    wanted = tasks.scenes(e.count)
    maps = np.stack([np.repeat(draw(scene).depth[..., None], 3, axis=-1) for scene in wanted])
    made = e.painter.paint(
        [Job("depth", plain_caption(s), 6000 + i, shown=maps[i]) for i, s in enumerate(wanted)], "depth"
    )
    e.add("pairs of pixels in the right order", depth_order(made, wanted).mean(), 0.95)
    e.add("slots right", slots_right(made, wanted).mean())
    e.sheet("depth", maps, made, np.stack([draw(scene).image for scene in wanted]))


def redux(e: Evaluation) -> None:
    wanted = tasks.scenes(e.count)
    truth = np.stack([draw(scene).image for scene in wanted])
    made = e.painter.paint([Job("dev", "", 7000 + i, shown=picture) for i, picture in enumerate(truth)], "redux")
    right = slots_right(made, wanted)
    for slot, share in zip(SLOTS, right.mean(0), strict=True):
        e.add(f"{slot} as shown", share)
    e.add("slots as shown", right.mean(), 0.9)
    e.add("all seven as shown", right.all(1).mean())
    e.sheet("redux", truth, made)


PARTS: dict[str, Callable[[Evaluation], object]] = {
    "autoencoder": autoencoder, "dev": dev, "schnell": schnell, "fill": fill, "kontext": kontext,
    "canny": canny, "depth": depth, "redux": redux,
}  # fmt: skip


def markdown(scores: list[Score]) -> str:
    def row(score: Score) -> str:
        goal = "" if score.goal is None else f"{'<=' if score.at_most else '>='} {score.goal:g}"
        mark = {None: "", True: "yes", False: "**no**"}[score.reached]
        return f"| {score.part} | {score.what} | {score.value:.3g} | {goal} | {mark} |"

    return "\n".join(["| part | what | score | goal | reached |", "|---|---|---|---|---|", *map(row, scores)]) + "\n"


def write(scores: list[Score], path: Path) -> list[Score]:
    """The table at `path`, as JSON and markdown, with the parts of `scores` made anew and the others left; returns it."""
    table, parts = path.with_suffix(".json"), {score.part for score in scores}
    kept = [Score(**row) for row in json.loads(table.read_text())] if table.exists() else []
    both = [*scores, *(score for score in kept if score.part not in parts)]
    both.sort(key=lambda score: list(PARTS).index(score.part))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps([asdict(score) for score in both], indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(both))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=64, help="held-out samples per score")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where the family's files are")
    parser.add_argument("--out", type=Path, default=RUNS / "scores", help="the table's path, without its ending")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS), help="the others are kept")
    arguments = parser.parse_args()
    with painting(arguments.folder) as painter:
        evaluation = Evaluation(painter, arguments.count, RUNS / f"{arguments.out.name}_sheets")
        for part in arguments.parts:
            evaluation.run(part)
            table = write(evaluation.scores, arguments.out)
    print(markdown(table))


if __name__ == "__main__":
    main()
