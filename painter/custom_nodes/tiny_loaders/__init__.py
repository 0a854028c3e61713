"""A custom node pack for the tiny models alone: lets ComfyUI's CLIPVisionLoader and StyleModelLoader load files of any size.

ComfyUI has one set of sizes for each, SigLIP so400m with 27 layers of 1152 channels and Redux for T5's 4096, whatever the
file says. The nodes, and all that follows on loading, stay its own.
"""

import comfy.clip_vision
import comfy.sd
import comfy.utils
from comfy.ldm.flux.redux import ReduxImageEncoder


def load_vision(path: str) -> comfy.clip_vision.ClipVisionModel:
    weights = comfy.utils.load_torch_file(path)
    mlp, width = weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape
    layers = sum(name.endswith(".layer_norm1.weight") for name in weights)
    vision = comfy.clip_vision.ClipVisionModel(
        {
            "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "hidden_size": width, "image_size": 384,
            "intermediate_size": mlp, "model_type": "siglip_vision_model", "num_attention_heads": 2,
            "num_hidden_layers": layers, "patch_size": 14, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        }
    )  # fmt: skip
    missing, _ = vision.load_sd(weights)
    assert not missing, missing
    return vision


def load_redux(path: str) -> comfy.sd.StyleModel:
    weights = comfy.utils.load_torch_file(path)
    redux = ReduxImageEncoder(weights["redux_up.weight"].shape[1], weights["redux_down.weight"].shape[0])
    redux.load_state_dict(weights)
    return comfy.sd.StyleModel(redux)


comfy.clip_vision.load = load_vision
comfy.sd.load_style_model = load_redux
NODE_CLASS_MAPPINGS: dict[str, type] = {}
