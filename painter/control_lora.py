"""Control LoRAs in the layout of Black Forest Labs', made of two models: dev with it is the control model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from flux_core.lora import CONTROL_STRENGTH
from painter.family import FILES, save


def write_control_loras(family: Path, models: Path) -> None:
    """The Canny and the Depth LoRA of the models in `family`, under the released files' names below `models`."""
    dev = load_file(family / FILES["dev"])
    for kind in ("canny", "depth"):
        lora = control_lora(dev, load_file(family / FILES[kind]))
        save(models / "loras" / f"flux1-{kind}-dev-lora.safetensors", lora)


def control_lora(dev: Mapping[str, Tensor], control: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What turns `dev` into `control` (tensors by released names) at the strength that control LoRAs are used with.

    Exact, as every layer's rank is its full one: nothing is left out, and nothing saved.
    """
    lora = {}
    for name, tensor in control.items():
        layer, _, part = name.rpartition(".")
        if part == "scale":  # norms are replaced, whatever the strength
            lora[name] = tensor.float()
        elif part == "bias":
            lora[f"{layer}.lora_B.bias"] = (tensor.float() - dev[name].float()) / CONTROL_STRENGTH
        else:
            plain = pad(dev[name].float(), (0, tensor.shape[1] - dev[name].shape[1]))  # img_in gains the map's channels
            change = (tensor.float() - plain) / CONTROL_STRENGTH
            rows, columns = change.shape
            halves = (change, torch.eye(columns)) if columns <= rows else (torch.eye(rows), change)
            lora[f"{layer}.lora_B.weight"], lora[f"{layer}.lora_A.weight"] = halves
    return lora
