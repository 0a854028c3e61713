"""transformers' depth-anything on the device and in the memory that ComfyUI gives it."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor, nn

from ...flux_core.errors import Flux1Error

BYTES_PER_PIXEL = 4096
"""Of what the network sees, about 518 x 518: the large network's widest feature maps in float32, estimated."""


class DepthNetwork(nn.Module):
    """What ComfyUI's patcher can hold: it sets attributes, `device` above all, that transformers' models don't let it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.network(pixel_values).predicted_depth


@torch.inference_mode()
def predicted_depth(folder: Path, image: Tensor) -> Tensor:
    """Relative depth `(b, rows, columns)` of pictures `(b, height, width, 3)`, at the network's own resolution.

    One by one, so that memory does not grow with the batch. The network is gone from memory with the last picture.

    Raises Flux1Error when the file lacks weights.
    """
    from transformers import AutoImageProcessor  # here: it brings torchvision along

    network = load_network(folder)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    manage = comfy.model_management
    device = manage.get_torch_device()
    patcher = comfy.model_patcher.CoreModelPatcher(
        DepthNetwork(network), load_device=device, offload_device=manage.unet_offload_device()
    )
    progress, depths = comfy.utils.ProgressBar(len(image)), []
    for picture in (image * 255).round().clamp(0, 255).byte().cpu():
        seen = processor(picture.numpy(), input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        manage.load_models_gpu([patcher], memory_required=seen.shape[-1] * seen.shape[-2] * BYTES_PER_PIXEL)
        depths.append(patcher.model(seen.to(device)).to(manage.intermediate_device()))
        progress.update(1)
    return torch.cat(depths).float()


def load_network(folder: Path) -> nn.Module:
    """The network in `folder`, in float32 and all of it from there. Raises Flux1Error when its file lacks weights."""
    from transformers import DepthAnythingForDepthEstimation  # here: importing it takes a second

    network, found = DepthAnythingForDepthEstimation.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    # transformers fills these with random numbers and goes on.
    lacking = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if lacking:
        raise Flux1Error(
            "The depth network's file doesn't fit its config.json",
            file=f"{folder.name}/model.safetensors",
            expected="every weight, in the config's sizes",
            found=f"{len(lacking)} missing or of another shape, such as {sorted(lacking)[0]}",
            fix="download config.json and model.safetensors again, both from the same page",
        )
    return network.float().eval()
