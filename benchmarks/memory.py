"""Peak memory and time of loading and of a run, each runner in a process of its own.

`python -m benchmarks.memory RUNNER FILE` measures one and prints it as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .inside import ROOT, comfyui, pack

RUNNERS = ("ours", "ours-unpacked", "ours-without-table", "comfy-default", "comfy-bf16")


def measured(runner: str, file: Path) -> dict[str, float]:
    """{"load": peak bytes above the process's own, "load_seconds", "run": peak bytes} of a runner."""
    command = [sys.executable, "-m", "benchmarks.memory", runner, str(file)]
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


def main(runner: str, file: Path) -> dict[str, float]:
    comfyui(file.parent.parent)
    pack()
    from .runs import ksampler
    from .steps import given, now

    what, models = given(512), loaders()
    forget()
    own, start = peak(), now()
    model: Any = models[runner](file)
    seconds, loaded = now() - start, peak()
    forget()
    ksampler(model, what, 0)
    return {"load": loaded - own, "load_seconds": seconds, "run": peak() - own}


def loaders() -> dict[str, Any]:
    import comfy.patcher_extension
    import comfy.sd
    import torch
    from comfy.ldm.modules.attention import attention_pytorch
    from flux1.nodes import bridge

    def without_table(file: Path) -> Any:
        model = bridge.load_model(str(file), pack=False)
        kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
        model.remove_wrappers_with_key(kind, "flux1_constants")
        return model

    def bf16(file: Path) -> Any:
        model = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.bfloat16})
        model.set_model_compute_dtype(torch.bfloat16)
        model.model_options["transformer_options"]["optimized_attention_override"] = lambda original, *args, **kwargs: (
            attention_pytorch(*args, **kwargs)
        )
        return model

    return {
        "ours": lambda file: bridge.load_model(str(file)),
        "ours-unpacked": lambda file: bridge.load_model(str(file), pack=False),
        "ours-without-table": without_table,
        "comfy-default": lambda file: comfy.sd.load_diffusion_model(str(file)),
        "comfy-bf16": bf16,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
