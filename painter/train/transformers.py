"""The transformers' stages as one table: what each starts from, what it learns from, for how long."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flux_core.model.transformer import Transformer
from flux_core.packing import unpack
from flux_core.variants import VARIANTS as RELEASED
from painter.family import FILES, VARIANTS, load_autoencoder, save_transformer
from painter.judges import read
from painter.language import Edit
from painter.scenes import SLOTS, Scene
from painter.train import batches
from painter.train.batches import Batch, Data
from painter.train.data import TRAINING
from painter.train.few_steps import Paths, few_steps_loss
from painter.train.flow import flow_loss, guidance_loss, sample
from painter.train.loop import RUNS, Ema, Optimisers, contact_sheet, run_stage
from painter.train.pairs import Encoders, Pictures, Words, as_control, edges, save

BATCH = 32
Loss = Callable[[Transformer], Tensor]


@dataclass(frozen=True)
class Stage:
    """variant: whose sizes and file it has. start: the stage it goes on from. batch: what it learns from."""

    variant: str
    start: str | None
    batch: Callable[..., Batch]
    steps: int
    lr: float = 1.5e-3
    learn: Callable[["Stage", Words], Loss] = lambda stage, empty: matching(stage, empty)


def matching(stage: Stage, empty: Words) -> Loss:
    """Plain flow matching."""
    data = Data(TRAINING)

    def loss(model: Transformer) -> Tensor:
        if torch.rand(()) < 0.01:
            data.look()
        return flow_loss(model, drawn(stage, data), empty)

    return loss


def drawn(stage: Stage, data: Data) -> Batch:
    if stage.batch is batches.text_to_image and torch.rand(()) < 0.5:
        return stage.batch(*data.some(BATCH), side="after")
    return stage.batch(*data.some(BATCH))


def guided(stage: Stage, empty: Words) -> Loss:
    """Guidance taken from the stage it starts with."""
    data, teacher = Data(TRAINING), frozen(stage)
    return lambda model: guidance_loss(model, teacher, drawn(stage, data), empty)


def in_few_steps(stage: Stage, empty: Words) -> Loss:
    """Four steps that lead where the stage it starts with goes in many."""
    paths = Paths(frozen(stage))
    return lambda model: few_steps_loss(model, *paths.some(BATCH))


STAGES = {
    "base": Stage("dev", None, batches.text_to_image, 1600, lr=2e-3),
    "teacher": Stage("dev", "base", batches.text_to_image, 4000),
    "dev": Stage("dev", "teacher", batches.text_to_image, 1200, lr=1e-3, learn=guided),
    "schnell": Stage("schnell", "dev", batches.text_to_image, 1500, lr=1e-3, learn=in_few_steps),
    "fill": Stage("fill", "base", batches.fill, 4000),
    "kontext": Stage("kontext", "base", batches.kontext, 4500),
    "canny": Stage("canny", "base", batches.canny, 850),
    "depth": Stage("depth", "base", batches.depth, 700),
}


def frozen(stage: Stage) -> Transformer:
    """The model that a stage starts from, as it is."""
    start = STAGES[stage.start]
    model = Transformer(VARIANTS[start.variant])
    model.load_state_dict(torch.load(RUNS / stage.start / "model.pt"))
    return compiled(model.requires_grad_(False))


def begun(stage: Stage) -> Transformer:
    """From nothing, adaptive norms start as identities; from another stage, what the variant has more starts at zero."""
    model = Transformer(VARIANTS[stage.variant])
    if stage.start is None:
        for name, parameter in model.named_parameters():
            if "mod.lin" in name or "modulation" in name or name.startswith("final_layer.linear"):
                nn.init.zeros_(parameter)
        return model
    mine, theirs = model.state_dict(), torch.load(RUNS / stage.start / "model.pt")
    widened = torch.zeros_like(mine["img_in.weight"])
    widened[:, : theirs["img_in.weight"].shape[1]] = theirs["img_in.weight"]
    model.load_state_dict({name: theirs[name] for name in mine} | {"img_in.weight": widened})
    return model


def compiled(model: Transformer) -> Transformer:
    """Block by block, in place: two small graphs for all blocks."""
    for block in [*model.double_blocks, *model.single_blocks]:
        block.compile(dynamic=False)
    return model


def train(name: str, steps: int | None = None) -> None:
    stage = STAGES[name]
    steps = steps or stage.steps
    torch.manual_seed(0)
    model, empty = compiled(begun(stage)), Encoders()([""])[:]
    blocks = [p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n]
    rest = [p for p in model.parameters() if not any(p is b for b in blocks)]
    optimisers, ema = Optimisers(blocks, rest, stage.lr, steps), Ema(model)
    loss_of = stage.learn(stage, empty)

    def step(i: int) -> dict[str, float]:
        loss = loss_of(model)
        loss.backward()
        optimisers.step(i)
        ema.update()
        return {"loss": loss.item()}

    def report(folder: Path, done: int) -> dict[str, float]:
        ema.swap()
        mean = Transformer(VARIANTS[stage.variant])
        mean.load_state_dict(model.state_dict())
        ema.swap()
        save(mean.state_dict(), folder / "model.pt")
        if name != "base":
            save_transformer(RUNS / FILES["dev" if name == "teacher" else name], mean)
        return look(stage, mean, folder / "samples.png")

    parts = {"model": model, "optimisers": optimisers, "ema": ema}
    run_stage(name, parts, step, steps, report, report_every=300)


def look(stage: Stage, model: Transformer, path: Path, count: int = 32) -> dict[str, float]:
    """A sheet of samples of held-out scenes and how many slots are right."""
    pictures, seen, said = batches.held_out(count)
    variant, batch = RELEASED[stage.variant], stage.batch(seen, said)
    packed = sample(model, batch, min(variant.steps, 16), variant.guidance, variant.shifted)
    with torch.no_grad():
        made = (load_autoencoder(RUNS / FILES["ae"]).decode(unpack(packed, 16, 16)) + 1) / 2
    shown, truth = shown_and_true(stage, pictures, count)
    rows = [rows[i : i + 8] for i in (0, 8) for rows in (shown / 255, made, truth / 255)]
    contact_sheet(rows, path)
    wanted = [e.after if stage.batch is batches.kontext else filled(e) if stage.batch is batches.fill else e.before
              for e in pictures.edits[:count]]  # fmt: skip
    right = torch.tensor(
        [read(m.clamp(0, 1).permute(1, 2, 0).numpy()).right(s) for m, s in zip(made, wanted, strict=True)]
    ).float()
    scores = dict(zip(SLOTS, right.mean(0).tolist(), strict=True)) | {"all": right.prod(1).mean().item()}
    return scores | {"mse": F.mse_loss(packed, batch.target).item()}


def filled(told: Edit) -> Scene:
    """What stands in a filled picture: as told where sky or sun were masked, else what was there."""
    return told.after if told.kind in ("sky", "remove body") else told.before


def shown_and_true(stage: Stage, pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """What the model is shown beside the text, and what it should paint, (count, 3, 128, 128) bytes."""
    before, after = pictures.before[:count], pictures.after[:count]
    if stage.batch is batches.fill:
        return pictures.filled[:count] * ~pictures.mask[:count, None], pictures.filled[:count]
    if stage.batch is batches.kontext:
        return before, after
    if stage.batch is batches.canny:
        return as_control(edges(pictures.before[:count])), before
    if stage.batch is batches.depth:
        return as_control(pictures.depth[:count]), before
    return before, before
