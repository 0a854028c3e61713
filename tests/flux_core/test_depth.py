"""Depth as a picture, and which folders hold a network that can give it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flux_core.depth import SPECTRAL, as_trained, check_folder, coloured, min_max
from flux_core.errors import Flux1Error

CONFIG = {"model_type": "depth_anything", "backbone": None, "backbone_config": {"model_type": "dinov2"}}


@pytest.mark.parametrize(("depth", "grey"), [(0.0, 0.0), (127.5, 0.5), (255.0, 1.0), (300.0, 1.0), (-5.0, 0.0)])
def test_as_trained_255_is_white(depth: float, grey: float):
    assert torch.allclose(
        as_trained(torch.full((1, 5, 7), depth), (20, 30)), torch.full((1, 30, 20), float(grey)), atol=1e-5
    )


def test_min_max_stretches_each_picture_alone():
    depth = torch.rand(3, 9, 12) * torch.tensor([1, 10, 100])[:, None, None] + 5
    grey = min_max(depth, (40, 30))
    assert grey.shape == (3, 30, 40)
    assert torch.equal(grey.amin((1, 2)), torch.zeros(3)) and torch.allclose(grey.amax((1, 2)), torch.ones(3))
    assert torch.allclose(grey, min_max(depth * 7 - 3, (40, 30)), atol=1e-4)


def test_a_flat_depth_is_black():
    assert torch.equal(min_max(torch.full((1, 4, 4), 3.0), (8, 8)), torch.zeros(1, 8, 8))


def test_colours_go_evenly_through_the_map_from_blue_to_red():
    steps = torch.linspace(0, 1, 2 * len(SPECTRAL) - 1)[None, None]
    colours = coloured(steps)[0, 0]
    assert torch.allclose(colours[::2], SPECTRAL, atol=1e-5)
    assert torch.allclose(colours[1::2], (SPECTRAL[1:] + SPECTRAL[:-1]) / 2, atol=1e-5)
    assert colours[0].argmax() == 2 and colours[-1].argmax() == 0


def write(folder: Path, config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / "preprocessor_config.json").write_text("{}")
    save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")


def test_a_whole_folder_is_fine(tmp_path: Path):
    for name, config in {"v1": CONFIG, "v2": {**CONFIG, "depth_estimation_type": "relative"}}.items():
        write(tmp_path / name, config)
        check_folder(tmp_path / name)


WRONG = {  # config.json, and words in the text
    "metric depth": ({**CONFIG, "depth_estimation_type": "metric"}, "metric"),
    "another network": ({**CONFIG, "model_type": "dpt"}, "dpt"),
    "a backbone to be fetched": ({**CONFIG, "backbone": "facebook/dinov2-small"}, "from elsewhere"),
    "a backbone of timm": ({**CONFIG, "use_timm_backbone": True}, "from elsewhere"),
    "another backbone": ({**CONFIG, "backbone_config": {"model_type": "swin"}}, "swin"),
    "no JSON": ("<html>", "no JSON"),
    "a list": ([CONFIG], "no JSON object"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_network_is_refused(name: str, tmp_path: Path):
    config, word = WRONG[name]
    write(tmp_path / "net", config)
    with pytest.raises(Flux1Error, match=rf"net/config.json.*Found: .*{word}.*Fix: .*huggingface.co"):
        check_folder(tmp_path / "net")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(file: str, tmp_path: Path):
    write(tmp_path / "Depth-Anything-V2-Small-hf", CONFIG)
    (tmp_path / "Depth-Anything-V2-Small-hf" / file).unlink()
    with pytest.raises(Flux1Error, match=rf"hf/{file}.*{tmp_path}.*depth-anything/Depth-Anything-V2-Small-hf"):
        check_folder(tmp_path / "Depth-Anything-V2-Small-hf")


def test_a_cut_file_is_refused(tmp_path: Path):
    write(tmp_path / "net", CONFIG)
    weights = tmp_path / "net" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(Flux1Error, match="truncated"):
        check_folder(tmp_path / "net")
