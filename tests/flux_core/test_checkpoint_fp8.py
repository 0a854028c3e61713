"""All five fp8 layouts stand for the same weights, here and in ComfyUI's own loader."""

import json
from pathlib import Path

import pytest
import torch

from flux_core.checkpoint import dequantize, header_of, identify, mark_scales, to_bfl
from flux_core.errors import Flux1Error
from tests.flux_core.checkpoint_samples import flux

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SCALES = (0.013, 0.5, 3.7)


def in_layout(
    layout: str, dtype: torch.dtype = E4M3
) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, torch.Tensor]]:
    """(A tiny FLUX in an fp8 layout, its metadata, the weights that it stands for in fp32.)"""
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in flux().items()}
    meant = {name: tensor.float() for name, tensor in weights.items()}
    layers = [n.removesuffix(".weight") for n, t in weights.items() if "blocks" in n and t.dim() == 2]
    confs = {layer: {"format": str(dtype).removeprefix("torch.").replace("fnuz", "fn")} for layer in layers}
    for i, layer in enumerate(layers):
        scale = torch.tensor(1.0 if layout == "a" else SCALES[i % 3])
        fp8 = (meant[f"{layer}.weight"] / scale).to(dtype)
        weights[f"{layer}.weight"], meant[f"{layer}.weight"] = fp8, fp8.float() * scale
        if layout != "a":
            weights[f"{layer}.{'scale_weight' if layout == 'b' else 'weight_scale'}"] = scale
        if layout == "b":
            weights[f"{layer}.scale_input"] = torch.tensor(1.0)
        if layout == "c":
            weights[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(confs[layer]).encode()), dtype=torch.uint8)
    if layout == "b":
        weights["scaled_fp8"] = torch.empty(0, dtype=dtype)
    return weights, {"_quantization_metadata": json.dumps({"layers": confs})} if layout == "d" else {}, meant


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("layout", "abcde")
def test_every_layout_is_known_and_gives_its_weights_back(layout: str, dtype: torch.dtype) -> None:
    weights, metadata, meant = in_layout(layout, dtype)
    assert identify(header_of(weights, metadata)).fp8 == layout
    assert not any(name.endswith("input_scale") for name in mark_scales(weights, metadata))  # all 1: as good as none
    found = dequantize(weights, metadata, torch.float32)
    assert found.keys() == meant.keys()
    assert all(torch.equal(found[name].float(), meant[name]) for name in meant)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("layout", "abcde")
def test_every_layout_loads_right_in_comfyui(comfyui: Path, layout: str, prefix: str) -> None:
    """Each layer's weight inside ComfyUI's model is the one meant, to a rounding of bf16 or better."""
    from comfy.sd import load_diffusion_model_state_dict

    weights, metadata, meant = in_layout(layout)
    converted = to_bfl({prefix + name: tensor for name, tensor in weights.items()}, metadata)
    model = load_diffusion_model_state_dict(converted, metadata={}).model.diffusion_model
    for name, expected in meant.items():
        layer, _, end = name.rpartition(".")
        found = getattr(model.get_submodule(layer), "weight" if end == "scale" else end)
        found = found.dequantize() if hasattr(found, "dequantize") and hasattr(found, "_qdata") else found
        assert error(found, expected) < 2**-7, name


@pytest.mark.parametrize("layout", "abcd")
def test_layouts_that_comfyui_knows_mean_there_what_they_mean_here(comfyui: Path, layout: str) -> None:
    """The same file straight into the stock loader: our reading of the layout is ComfyUI's."""
    from comfy.sd import load_diffusion_model_state_dict

    weights, metadata, meant = in_layout(layout)
    model = load_diffusion_model_state_dict(dict(weights), metadata=metadata).model.diffusion_model
    for name in [name for name in meant if meant[name].dim() == 2]:
        found = model.get_submodule(name.removesuffix(".weight")).weight
        found = found.dequantize() if hasattr(found, "_qdata") else found
        assert error(found, meant[name]) < 2**-7, name


def test_bare_scales_are_marked_and_nothing_is_copied_or_changed() -> None:
    weights, _, _ = in_layout("e")
    names = set(weights)
    marked = mark_scales(weights)
    assert set(weights) == names
    assert all(marked[name] is weights[name] for name in names)
    added = {name: bytes(marked[name].tolist()) for name in marked.keys() - names}
    layers = {name.removesuffix(".weight_scale") for name in names if name.endswith(".weight_scale")}
    assert added == {f"{layer}.comfy_quant": b'{"format": "float8_e4m3fn"}' for layer in layers}


def test_old_names_without_the_old_marker_count_as_bare() -> None:
    weights, _, meant = in_layout("b")
    del weights["scaled_fp8"]
    assert identify(header_of(weights)).fp8 == "e"
    found = dequantize(weights, dtype=torch.float32)
    assert all(torch.equal(found[name].float(), meant[name]) for name in meant)


def test_old_marker_of_two_asks_for_full_precision() -> None:
    weights, _, _ = in_layout("b")
    marked = mark_scales(weights | {"scaled_fp8": torch.empty(2, dtype=E4M3)})
    assert b'"full_precision_matrix_mult": true' in bytes(marked["double_blocks.0.img_attn.qkv.comfy_quant"].tolist())


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", [E4M3, torch.int8, torch.bfloat16])
def test_scales_beyond_comfyuis_fp8_are_multiplied_in(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    scale = torch.tensor([0.5, 1.0, 2.0])
    marked = mark_scales({"x.weight": weight.to(dtype), "x.weight_scale": scale.reshape(shape)})
    assert marked.keys() == {"x.weight"}
    assert torch.equal(marked["x.weight"].float(), weight * scale[:, None])


def test_scale_that_fits_no_row_is_refused() -> None:
    with pytest.raises(Flux1Error, match=r"scale of 'x' doesn't fit"):
        mark_scales({"x.weight": torch.zeros(4, 4, dtype=E4M3), "x.weight_scale": torch.ones(2, 2)})


def test_other_number_formats_are_refused_by_name() -> None:
    marker = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    weights = {
        "x.weight": torch.zeros(4, 2, dtype=torch.uint8),
        "x.weight_scale": torch.ones(()),
        "x.comfy_quant": marker,
    }
    with pytest.raises(Flux1Error, match="nvfp4"):
        dequantize(weights)
