"""The five fp8 layouts, through /prompt: what they hold is what is painted with."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flux_core.checkpoint import dequantize
from painter.family import load_transformer, released_names
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, latent_of, model, prompt
from workflows.client import Client
from workflows.server import Server

MARKER = b'{"format": "float8_e4m3fn"}'
LAYOUTS = ["plain", "old scaled", "marked", "metadata", "bare"]


def write(layout: str, weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Write the matrices of the blocks in fp8, the layout as named; returns the weights that the file stands for."""
    out, layers = {}, []
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if weight.ndim != 2 or not name.startswith(("double_blocks.", "single_blocks.")):
            out[name] = weight
            continue
        # Far from 1, so that a scale that is not applied can't be overlooked.
        scale = torch.tensor(1.0) if layout == "plain" else weight.abs().max() / 448 * 2
        out[name] = (weight / scale).to(torch.float8_e4m3fn)
        layers.append(layer)
        if layout != "plain":
            out[f"{layer}.{'scale_weight' if layout == 'old scaled' else 'weight_scale'}"] = scale
        if layout == "marked":
            out[f"{layer}.comfy_quant"] = torch.tensor(list(MARKER), dtype=torch.uint8)
    metadata = {"format": "pt"}
    if layout == "old scaled":
        out["scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    if layout == "metadata":
        described = {"format_version": "1.0", "layers": {layer: {"format": "float8_e4m3fn"} for layer in layers}}
        metadata["_quantization_metadata"] = json.dumps(described)
    save_file(out, path, metadata)
    return dequantize(out, metadata)


@pytest.fixture(scope="module")
def files(models) -> None:
    folder = models / "diffusion_models"
    weights = released_names(load_transformer(folder / "flux1-dev.safetensors", "dev"))
    for layout in LAYOUTS:
        meant = write(layout, weights, folder / f"fp8 {layout}.safetensors")
        save_file({name: tensor.float() for name, tensor in meant.items()}, folder / f"meant {layout}.safetensors")


def painted(running: Server, client: Client, loader: str, file: str) -> torch.Tensor:
    add = GraphBuilder()
    clip, _ = encoders(add)
    latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
    text = prompt(add, clip)
    return latent_of(running, client, add, ksampler(add, model(add, loader, file), text, text, latent))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp8_equals_its_weights_in_float32(layout, running: Server, server: Client, files):
    """To 0.5 %: on CUDA and CPU alike ComfyUI multiplies dequantised weights, which it rounds to the compute type."""
    ours = painted(running, server, "Flux1LoadModel", f"fp8 {layout}.safetensors")
    meant = painted(running, server, "Flux1LoadModel", f"meant {layout}.safetensors")
    assert difference(ours, meant) <= 5e-3


@pytest.mark.parametrize("layout", ["plain", "old scaled", "marked", "metadata"])
def test_fp8_equals_comfyui_s_loader(layout, running: Server, server: Client, files):
    ours = painted(running, server, "Flux1LoadModel", f"fp8 {layout}.safetensors")
    assert difference(ours, painted(running, server, "UNETLoader", f"fp8 {layout}.safetensors")) <= 1e-4


def test_bare_scales_are_what_comfyui_overlooks(running: Server, server: Client, files):
    """The reason why bare scales get their markers."""
    theirs = painted(running, server, "UNETLoader", "fp8 bare.safetensors")
    meant = painted(running, server, "Flux1LoadModel", "meant bare.safetensors")
    assert difference(theirs, meant) > 0.1
