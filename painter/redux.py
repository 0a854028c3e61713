"""Redux of the tiny family: a SigLIP that looks at a picture, and the projection that makes words for dev of what it saw.

ComfyUI's own loaders know both at the released sizes alone; `custom_nodes/tiny_loaders` lets them load these.
"""

from pathlib import Path

from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from painter.family import TEXT_WIDTH, save
from workflows.server import NAME

FILES = {
    "siglip": "clip_vision/sigclip_vision_patch14_384.safetensors",
    "redux": "style_models/flux1-redux-dev.safetensors",
}
VISION_WIDTH = 64
SIDE = 384  # pixels that SigLIP sees along each side, whatever the picture's size
TOKENS = 729  # of a picture
HERE = Path(__file__).parent
LOADERS = (
    "--extra-model-paths-config", str(HERE / "extra_model_paths.yaml"), "--whitelist-custom-nodes", NAME, "tiny_loaders",
)  # fmt: skip
"""ComfyUI's options with which its loaders take files of these sizes."""


def new_siglip(width: int = VISION_WIDTH) -> SiglipVisionModel:
    """Two layers of two heads, and 729 tokens of a picture of 384 x 384 pixels, as ever."""
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
            patch_size=14, vision_use_head=False,
        )
    )  # fmt: skip


def new_redux(width: int = VISION_WIDTH, text_width: int = TEXT_WIDTH) -> nn.ModuleDict:
    """Two linear layers with a SiLU between them, from SigLIP's width to T5's."""
    return nn.ModuleDict({
        "redux_up": nn.Linear(width, 3 * text_width), "redux_down": nn.Linear(3 * text_width, text_width)
    })  # fmt: skip


def save_siglip(path: Path, model: SiglipVisionModel) -> None:
    # Whether a name has this prefix already depends on transformers' version.
    bare = {name.removeprefix("vision_model."): tensor.half() for name, tensor in model.state_dict().items()}
    save(path, {f"vision_model.{name}": tensor for name, tensor in bare.items()})


def save_redux(path: Path, model: nn.ModuleDict) -> None:
    save(path, {name: tensor.half() for name, tensor in model.state_dict().items()})
