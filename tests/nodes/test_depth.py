"""Depth maps against transformers' own pipeline, on tiny random networks of both generations."""

import gc
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.companions import write_depth_network
from tests.nodes.graphs import GraphBuilder
from workflows.client import Client, RunError

# As on the public pages: which layers of the backbone are read tells the generations apart.
OUT_INDICES = {"depth-anything-small-hf": [3, 4, 5, 6], "Depth-Anything-V2-Small-hf": [1, 2, 4, 6]}
V1, V2 = OUT_INDICES


@pytest.fixture(scope="module")
def networks(models: Path) -> Path:
    for name, out_indices in OUT_INDICES.items():
        torch.manual_seed(sum(out_indices))
        write_depth_network(models / "depth_anything" / name, out_indices)
    return models / "depth_anything"


def picture(width: int, height: int, batch: int = 1) -> torch.Tensor:
    torch.manual_seed(width)
    coarse = torch.rand(batch, 3, -(-height // 16), -(-width // 16))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


def pipeline_of(folder: Path):
    from transformers import pipeline

    return pipeline("depth-estimation", model=str(folder), device="cpu")


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().numpy())


def depth_map(image: torch.Tensor, name: str, normalisation: str) -> tuple[torch.Tensor, torch.Tensor]:
    from flux1.nodes.control import Flux1DepthMap

    return Flux1DepthMap.execute(image, name, normalisation).args


@pytest.mark.parametrize("size", [(96, 64), (71, 57), (30, 200), (700, 640)])
@pytest.mark.parametrize("name", OUT_INDICES)
def test_depth_is_transformers_pipeline_s(pack, networks, name, size):
    from flux1.flux_core.depth import at_size
    from flux1.nodes.bridge import predicted_depth

    image = picture(*size, batch=2)
    raw = predicted_depth(networks / name, image)
    theirs = pipeline_of(networks / name)([pil(one) for one in image])
    for mine, their in zip(at_size(raw, size, antialias=False), theirs, strict=True):
        expected = their["predicted_depth"]
        assert expected.std() > 1
        assert ((mine - expected).abs().max() / expected.abs().max()).item() <= 1e-5

    grey, _ = depth_map(image, name, "min-max")
    assert grey.shape == image.shape and grey.min() == 0 and grey.max() == 1
    for mine, their in zip(grey, theirs, strict=True):  # which is cut down to whole numbers
        assert abs(mine.numpy() * 255 - np.asarray(their["depth"])[..., None]).max() <= 1 + 1e-3


@pytest.mark.parametrize("name", OUT_INDICES)
def test_as_trained_is_black_forest_labs_code(pack, networks, name):
    """The lines of black-forest-labs/flux's DepthImageEncoder, on transformers' classes, clamped to what a picture holds."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    image = picture(120, 90)
    processor = AutoImageProcessor.from_pretrained(networks / name)
    network = AutoModelForDepthEstimation.from_pretrained(networks / name)
    with torch.no_grad():
        seen = processor((image.movedim(-1, 1) * 255).round().byte(), return_tensors="pt")["pixel_values"]
        depth = network(seen).predicted_depth.expand(3, -1, -1)[None]
        depth = torch.nn.functional.interpolate(depth, (90, 120), mode="bicubic", antialias=True) / 127.5 - 1
    grey, coloured = depth_map(image, name, "as trained")
    assert torch.allclose(grey * 2 - 1, depth.movedim(1, -1).clamp(-1, 1), atol=1e-5)
    assert 0 < grey.mean() < 1 and grey.std() > 0.01
    assert coloured.shape == image.shape and not torch.equal(coloured[..., 0], coloured[..., 2])


def test_a_batch_is_its_pictures_one_by_one(pack, networks):
    image = picture(96, 64, batch=3)
    for normalisation in ("as trained", "min-max"):
        together = depth_map(image, V2, normalisation)
        alone = [depth_map(one[None], V2, normalisation) for one in image]
        for i in range(2):
            assert torch.equal(together[i], torch.cat([outputs[i] for outputs in alone]))


def test_grey_and_transparent_pictures_are_as_good_as_rgb(pack, networks):
    image = picture(96, 64)
    grey = image[..., :1]
    assert torch.equal(depth_map(grey, V1, "min-max")[0], depth_map(grey.expand(-1, -1, -1, 3), V1, "min-max")[0])
    clear = torch.cat([image, torch.zeros_like(grey)], -1)
    assert torch.equal(depth_map(clear, V1, "min-max")[0], depth_map(image, V1, "min-max")[0])


def test_no_network_is_asked_and_comfyui_manages_the_memory(pack, networks):
    """While the network runs it is one of ComfyUI's loaded models; afterwards nothing of it is left."""
    import comfy.model_management
    from transformers import DepthAnythingForDepthEstimation

    managed, alive, asked, listening = [], [], [], True

    def watch(module, *_):
        if isinstance(module, DepthAnythingForDepthEstimation):
            managed.append(
                any(module in patcher.model.children() for patcher in comfy.model_management.loaded_models())
            )
            alive.append(weakref.ref(module))

    def audit(event, args):
        if listening and event in ("socket.connect", "socket.getaddrinfo"):
            asked.append((event, args))

    sys.addaudithook(audit)
    hook = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        depth_map(picture(96, 64, batch=2), V1, "min-max")
    finally:
        hook.remove()
        listening = False
    gc.collect()
    assert managed == [True, True] and not asked
    assert not [network for network in alive if network() is not None]


def test_a_file_without_all_weights_is_refused(pack, networks, models):
    """transformers would fill the gaps with random numbers."""
    from flux1.flux_core.errors import Flux1Error

    for name, change in {"missing": {}, "misshapen": {"head.conv3.weight": torch.zeros(1, 9, 1, 1)}}.items():
        folder = models / "depth_anything" / name
        shutil.copytree(networks / V1, folder)
        weights = load_file(folder / "model.safetensors")
        del weights["head.conv3.weight"]
        save_file({**weights, **change}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(Flux1Error, match=rf"{name}/model.safetensors.*head.conv3.weight.*Fix"):
            depth_map(picture(96, 64), name, "min-max")


@pytest.mark.parametrize("size", [(16, 16), (1024, 16), (16, 1024)])
def test_the_smallest_and_the_narrowest_pictures_have_depth(pack, networks, size):
    image = picture(*size)
    assert all(output.shape == image.shape and output.isfinite().all() for output in depth_map(image, V2, "min-max"))


def test_a_narrower_picture_is_refused(pack, networks):
    from flux1.flux_core.errors import Flux1Error

    with pytest.raises(Flux1Error, match="64 to 1.*1040 x 16"):
        depth_map(picture(1040, 16), V2, "min-max")


def queued(add: GraphBuilder, name: str) -> GraphBuilder:
    image = add("LoadImage", image="depth.png")[0]
    grey = add("Flux1DepthMap", image=image, model_name=name, normalisation="min-max")[0]
    add("SaveImage", images=grey, filename_prefix="test/depth")
    return add


def test_the_server_paints_the_pipeline_s_picture(server: Client, networks):
    image = pil(picture(96, 64)[0])
    server.upload(image, "depth.png")
    (grey,) = server.run(queued(GraphBuilder(), V2).graph).images
    theirs = pipeline_of(networks / V2)(image)["depth"]
    assert abs(np.asarray(grey, int)[..., 0] - np.asarray(theirs, int)).max() <= 1


MISSING = {  # the name asked for, and words in the text
    "Depth-Anything-V2-Base-hf": ["huggingface.co/depth-anything/Depth-Anything-V2-Base-hf", "models/depth_anything"],
    "nobody's": ["huggingface.co/", "config.json", "models/depth_anything", V2],
    "../text_encoders": ["not in list"],
    "/etc": ["not in list"],
    "half": ["half/model.safetensors", "config.json, preprocessor_config.json"],
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_there_is_said_before_anything_runs(name, server: Client, networks, models):
    half = models / "depth_anything" / "half"
    shutil.copytree(networks / V1, half, dirs_exist_ok=True)
    (half / "model.safetensors").unlink()
    with pytest.raises(RunError) as caught:
        server.run(queued(GraphBuilder(), name).graph)
    text = str(caught.value)
    assert caught.value.status == 400
    assert all(word in text for word in [*MISSING[name], name, "Expected:", "Found:", "Fix:"]), text
