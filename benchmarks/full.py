"""A whole FLUX.1-dev of random weights: written to disk, two steps of 512 x 512 pixels, deleted.

`python -m benchmarks.full [FOLDER]` does it alone, and prints JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from flux_core.variants import DEV

from .steps import OurStep, given, now, ours
from .weights import write

NEEDED = 26 << 30
"""Bytes on the disk: the file and some room."""


def measured(folder: Path) -> dict[str, Any]:
    """Seconds of loading, of the first step (which reads the file and makes the modulations) and of the second.

    Raises OSError where the disk has no room.
    """
    from . import memory

    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        raise OSError(f"{folder} has {free >> 30} GB free, {NEEDED >> 30} are needed")
    path = write(folder / "diffusion_models" / "whole.safetensors", DEV)
    try:
        memory.forget()
        start = now()
        step = OurStep(ours(path))
        seconds, what = {"load": now() - start}, given(512)
        for name in ("first", "second"):
            start = now()
            _, velocity = step(what)
            seconds[name] = now() - start
        assert velocity.isfinite().all()
        return {"bytes": path.stat().st_size, "seconds": seconds, "peak": memory.peak()}
    finally:
        path.unlink()


def main(folder: str | None = None) -> None:
    from . import inside

    with tempfile.TemporaryDirectory(prefix="flux1-whole-", dir=folder) as place:
        inside.comfyui(Path(place))
        inside.pack()
        print(json.dumps(measured(Path(place)), indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:2])
