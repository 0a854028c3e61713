"""ComfyUI and the pack in this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from workflows.comfyui import find_comfyui

ROOT = Path(__file__).resolve().parent.parent


def comfyui(models: Path) -> None:
    """Make ComfyUI importable, started as `--cpu` starts it where there is no GPU, and listing the files in `models`."""
    import torch

    sys.path[:] = [
        entry for entry in sys.path if Path(entry or os.getcwd()).resolve() != ROOT
    ]  # its `nodes` is not ours
    sys.path[:0] = [str(find_comfyui())]
    sys.path.append(str(ROOT))
    sys.argv[1:] = []
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.models_directory = str(models)
    args.base_directory = str(models.parent)


def pack() -> ModuleType:
    """The pack as ComfyUI loads it, importable as `flux1` from then on."""
    spec = importlib.util.spec_from_file_location("flux1", ROOT / "__init__.py")
    assert spec and spec.loader
    module = sys.modules["flux1"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
