"""Peak memory and time of loading and of a run, each runner in a process of its own.

`python -m benchmarks.memory RUNNER FILE SIDE` measures one and prints it as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .inside import ROOT, comfyui, pack

RUNNERS = ("ours", "ours-unpacked", "ours-without-table", "comfy-default", "comfy-bf16")
QUICK = ("ours-unpacked", "comfy-default")


def measured(runner: str, file: Path, side: int) -> dict[str, float]:
    """{"load": peak bytes above the process's own, "load_seconds", "run": peak bytes} of a runner, at side x side pixels."""
    command = [sys.executable, "-m", "benchmarks.memory", runner, str(file), str(side)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{runner}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> int:
    """Most bytes in this process's memory since the last `forget`."""
    import torch

    status = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    return status + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(runner: str, file: Path, side: int) -> dict[str, float]:
    comfyui(file.parent.parent)
    pack()
    from .runs import ksampler
    from .steps import given, now

    what, models = given(side), loaders()
    forget()
    own, start = peak(), now()
    model: Any = models[runner](file)
    seconds, loaded = now() - start, peak()
    forget()
    ksampler(model, what, 0)
    return {"load": loaded - own, "load_seconds": seconds, "run": peak() - own}


def loaders() -> dict[str, Callable[[Path], Any]]:
    """MODELs by runner; all that loading needs is imported."""
    import comfy.sd  # noqa: F401
    from flux1.nodes import bridge  # noqa: F401

    from . import steps

    return {
        "ours": steps.ours,
        "ours-unpacked": lambda file: steps.ours(file, pack=False),
        "ours-without-table": without_table,
        "comfy-default": steps.comfy_default,
        "comfy-bf16": steps.comfy_bf16,
    }


def without_table(file: Path) -> Any:
    """Ours, but each step computes its modulations."""
    import comfy.patcher_extension

    from .steps import ours

    model = ours(file, pack=False)
    model.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "flux1_constants")
    return model


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
