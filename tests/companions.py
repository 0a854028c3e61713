"""What bundled workflows load beside the tiny family, as tiny and as random: Redux, SigLIP, depth-anything, control LoRAs."""

import json
from pathlib import Path

import torch
from torch import nn

from painter.control_lora import write_control_loras
from painter.redux import FILES, new_redux, new_siglip, save_redux, save_siglip

PREPROCESSOR = {
    "image_processor_type": "DPTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
    "do_pad": False, "ensure_multiple_of": 14, "keep_aspect_ratio": True, "resample": 3, "rescale_factor": 1 / 255,
    "size": {"height": 518, "width": 518}, "size_divisor": None, "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def write_companions(models: Path, seed: int = 1) -> None:
    """All of them, beside the family that is there, under the released files' names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_siglip(models / FILES["siglip"], randomised(new_siglip()))
        save_redux(models / FILES["redux"], randomised(new_redux()))
        write_depth_network(models / "depth_anything" / "depth-anything-large-hf", [3, 4, 5, 6])
    write_control_loras(models, models)


def write_depth_network(folder: Path, out_indices: list[int]) -> None:
    """depth-anything with six layers, whose depths are some ten to some hundred. `out_indices`: the layers of the backbone
    that are read, which tell its generations apart."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=24, num_hidden_layers=6, num_attention_heads=2, image_size=518, patch_size=14,
        out_indices=out_indices, apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8,
    )  # fmt: skip
    network = randomised(DepthAnythingForDepthEstimation(config))
    network.head.conv3.weight.data.abs_().mul_(100)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def randomised(module: nn.Module) -> nn.Module:
    """With random weights that neither blow up nor die away, as transformers' own would."""
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape) * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return module.eval()
