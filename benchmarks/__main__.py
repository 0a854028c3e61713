"""`python -m benchmarks [--quick] [--json FILE] [--plot FILE] [--full]`: the table in the README.

Ratios are the peer's seconds by ours, on the same weights and inputs, in turns in one process; no speed without the error.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import full, growth, inside, memory, modulation, plot, runs, steps, weights
from .lines import Line, Timed, error, line, rounds

GB = 1 << 30


def main() -> None:
    options = arguments()
    import torch

    with tempfile.TemporaryDirectory(prefix="flux1-benchmark-") as folder:
        models = Path(folder) / "models"
        file = weights.write(models / "diffusion_models" / "flux1-dev.safetensors", weights.shallow())
        inside.comfyui(models)
        inside.pack()
        with tqdm(unit=" runs", smoothing=0) as bar:
            report = measure(file, options.quick, bar)
        if options.full:
            report["full"] = full.measured(models.parent)
    report["machine"] = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    plot.draw(report, options.plot)
    print(f"plot: {options.plot}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under three minutes: one size, two peers, one round, of whole runs the tiny one",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=Path("output/benchmark.png"))
    parser.add_argument("--full", action="store_true", help="also a step of a whole FLUX.1-dev: 24 GB of disk")
    return parser.parse_args()


def measure(file: Path, quick: bool, bar: tqdm) -> dict[str, Any]:
    """All but the machine: memory first, while this process has loaded nothing."""
    import comfy.utils
    import torch

    comfy.utils.set_progress_bar_enabled(False)
    bar.set_description("memory")
    memories = {}
    for runner in memory.QUICK if quick else memory.RUNNERS:
        memories[runner] = memory.measured(runner, file, 256 if quick else 512)
        bar.update()

    mine = {"packed": steps.OurStep(steps.ours(file))}
    if not quick:
        mine["unpacked"] = steps.OurStep(steps.ours(file, pack=False))
    models = {"comfy-default": steps.comfy_default(file), "comfy-bf16": steps.comfy_bf16(file)}
    exact = steps.ComfyStep(steps.comfy_bf16(file, compute=torch.float32))
    lines = step_lines(mine, models, exact, quick, bar)
    bar.set_description("run")
    if not quick:
        lines += run_lines({"ours": mine["packed"].patcher} | models, exact.patcher, bar.update)
    lines.append(tiny_line(file.parent, quick, bar.update))
    bar.set_description("growth")
    sides, repeats = ((256, 512), 1) if quick else ((256, 512, 1024, 1536), 2)
    grown = growth.measured(mine["packed"], sides, bar.update, repeats)
    return {
        "lines": [each.row() for each in lines],
        "modulation": modulation.counted() | modulation.bits(),
        "growth": {"rows": grown} | {f"exponent_{what}": growth.exponent(grown, what) for what in ("seconds", "flops")},
        "memory": {"file": file.stat().st_size} | memories,
        "cuda": "measured" if torch.cuda.is_available() else "SKIP: no CUDA device",
    }


def step_lines(
    mine: dict[str, steps.OurStep], models: dict[str, Any], exact: steps.ComfyStep, quick: bool, bar: tqdm
) -> list[Line]:
    """A step against each peer; against the strongest also without packed weights."""
    import torch

    peers: dict[str, Callable[[steps.Given], Timed]] = {name: steps.ComfyStep(model) for name, model in models.items()}
    if not quick and not torch.cuda.is_available():
        peers["diffusers"] = steps.DiffusersStep(dict(weights.seeded(weights.shallow())), 1, 2)
    plan = [("step.512", steps.given(512), 1 if quick else 5)]
    if not quick:
        plan += [("step.1024", steps.given(1024), 3), ("kontext.512", steps.given(512, reference=True), 3)]

    lines = []
    for name, what, count in plan:
        bar.set_description(name)
        runners = mine | peers
        results = rounds([partial(run, what) for run in runners.values()], count, bar.update)
        _, true = exact(what)
        times = {runner: [each[place][0] for each in results] for place, runner in enumerate(runners)}
        errors = {runner: error(results[0][place][1], true) for place, runner in enumerate(runners)}
        pairs = [("packed", peer, f"{name}.{peer}") for peer in peers]
        pairs.append(("unpacked", "comfy-bf16", f"{name}.comfy-bf16.unpacked"))
        lines += [
            line(title, zip(times[ours], times[peer], strict=True), errors[ours], errors[peer])
            for ours, peer, title in pairs
            if ours in mine
        ]
    return lines


def run_lines(models: dict[str, Any], exact: Any, tick: Callable[[], None]) -> list[Line]:
    """Four steps by KSampler at real width, ours first."""
    results = rounds([runs.runner(model, lambda n: steps.given(512, seed=n)) for model in models.values()], 3, tick)
    _, true = runs.ksampler(exact, steps.given(512, seed=1), seed=1)
    errors = [error(painted, true) for _, painted in results[0]]
    return [
        line(f"run.{peer}", [(each[0][0], each[place][0]) for each in results], errors[0], errors[place])
        for place, peer in enumerate(list(models)[1:], start=1)
    ]


def tiny_line(folder: Path, quick: bool, tick: Callable[[], None]) -> Line:
    """Four steps by KSampler at tiny size, from the file on."""
    import torch

    from painter.family import VARIANTS, new_transformer, save_transformer

    file, width = folder / "tiny.safetensors", VARIANTS["dev"].context_in_dim
    torch.manual_seed(0)
    save_transformer(file, new_transformer("dev"))

    def small(n: int) -> steps.Given:
        whole = steps.given(256, seed=n)
        return steps.Given(whole.latent, whole.states[..., :width], whole.pooled[..., :width], whole.guidance)

    loads = [lambda: steps.ours(file), lambda: steps.comfy_default(file)]
    results = rounds([runs.loading_runner(load, small) for load in loads], 5 if quick else 15, tick)
    _, true = runs.ksampler(steps.comfy_bf16(file, compute=torch.float32), small(1), seed=1)
    errors = [error(painted, true) for _, painted in results[0]]
    return line("run.tiny.comfy-default", [(each[0][0], each[1][0]) for each in results], *errors)


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    rows = [
        "| line | times as fast | least | 95 % | our error | its error | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in report["lines"]:
        low, high = each["interval"]
        rows.append(
            f"| `{each['name']}` | {each['ratio']:.2f} | {each['ratio_min']:.2f} | {low:.2f}-{high:.2f} "
            f"| {each['error']:.2e} | {each['peer_error']:.2e} | {each['seconds']:.2f} |"
        )
    saved, grown, memories = report["modulation"], report["growth"], report["memory"]
    rows += [
        "",
        f"Weights that a step touches: {saved['bytes'] / GB:.2f} GB, without the table of modulations "
        f"{saved['bytes_without'] / GB:.2f} GB: {100 * saved['share_saved']:.2f} % less. Same bits in float32: "
        f"{saved['same_bits_float32']}, in bfloat16: {saved['same_bits_bfloat16']}.",
        "",
        f"Growth: seconds by tokens to the power of {grown['exponent_seconds']:.2f}, FLOPs {grown['exponent_flops']:.2f} ("
        + ", ".join(f"{row['side']}: {row['seconds']:.1f} s" for row in grown["rows"])
        + ").",
        "",
        f"| peak memory, file of {memories['file'] / GB:.2f} GB | loading | a run | seconds of loading |",
        "|---|---|---|---|",
        *(
            f"| {runner} | {memories[runner]['load'] / GB:.2f} GB | {memories[runner]['run'] / GB:.2f} GB "
            f"| {memories[runner]['load_seconds']:.2f} |"
            for runner in memories
            if runner != "file"
        ),
        "",
        f"CUDA: {report['cuda']}",
    ]
    if "full" in report:
        seconds = report["full"]["seconds"]
        rows.append(
            f"A whole FLUX.1-dev of random bfloat16 weights, 512 x 512: loaded in {seconds['load']:.1f} s, first step "
            f"{seconds['first']:.0f} s, second {seconds['second']:.0f} s."
        )
    return "\n".join(rows)


def processor() -> str:
    """Its name and what of it matters here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = next(row.split(":")[1].strip() for row in text.splitlines() if row.startswith("model name"))
    return name + "".join(f", {feature}" for feature in ("avx512_bf16", "amx_bf16") if feature in text)


if __name__ == "__main__":
    main()
