"""Every layout of a transformer comes out as the same released one, and computes what diffusers computes."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from einops import rearrange
from safetensors.torch import load_file, save_file

from flux_core.checkpoint import dequantize, to_bfl
from flux_core.errors import Flux1Error
from tests.flux_core.checkpoint_samples import diffusers_flux, diffusers_model, flux, vae

FP8 = torch.float8_e4m3fn


def stock_velocity(weights: dict[str, torch.Tensor], **inputs: torch.Tensor) -> torch.Tensor:
    """What ComfyUI's own FLUX computes with weights in the released names."""
    from comfy import ops
    from comfy.ldm.flux.model import Flux
    from comfy.supported_models import Flux as Config

    sizes = {"in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 64, "hidden_size": 128}
    sizes |= {"mlp_ratio": 4.0, "num_heads": 1, "depth": 3, "depth_single_blocks": 6, "axes_dim": [16, 56, 56]}
    sizes |= {"theta": 10_000, "patch_size": 2, "qkv_bias": True, "txt_ids_dims": []}
    sizes["guidance_embed"] = "guidance_in.in_layer.weight" in weights
    model = Flux(**sizes, dtype=torch.float32, operations=ops.disable_weight_init)
    model.load_state_dict(Config({}).process_unet_state_dict(weights))
    return model(**inputs)


def diffusers_velocity(
    model: FluxTransformer2DModel,
    x: torch.Tensor,
    timestep: torch.Tensor,
    context: torch.Tensor,
    y: torch.Tensor,
    guidance: torch.Tensor,
) -> torch.Tensor:
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    ids = torch.cartesian_prod(*(torch.arange(count).float() for count in (1, rows, columns)))
    tokens = model(
        hidden_states=rearrange(x, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2),
        timestep=timestep,
        guidance=guidance if model.config.guidance_embeds else None,
        encoder_hidden_states=context,
        pooled_projections=y,
        img_ids=ids,
        txt_ids=torch.zeros(context.shape[1], 3),
    ).sample
    return rearrange(tokens, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=rows, ph=2, pw=2)


@pytest.mark.parametrize("guidance", [True, False])
@torch.no_grad()
def test_converted_weights_compute_what_diffusers_computes(comfyui: Path, guidance: bool) -> None:
    model = diffusers_model(guidance=guidance)
    inputs = {
        "x": torch.randn(2, 16, 6, 8),
        "timestep": torch.tensor([0.7, 0.3]),
        "context": torch.randn(2, 5, 64),
        "y": torch.randn(2, 32),
        "guidance": torch.tensor([3.5, 2.0]),
    }
    expected = diffusers_velocity(model, **inputs)
    found = stock_velocity(to_bfl(model.state_dict()), **inputs)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_converted_weights_equal_those_of_the_stock_conversion(comfyui: Path) -> None:
    from comfy.model_detection import convert_diffusers_mmdit

    stock = convert_diffusers_mmdit(diffusers_flux(), "")
    found = {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in to_bfl(diffusers_flux()).items()}
    assert found.keys() == stock.keys()
    assert all(torch.equal(found[name], stock[name]) for name in stock)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer.", "model."])
def test_every_prefix_and_layout_gives_the_same_weights(prefix: str) -> None:
    expected = flux()
    as_comfyui_saves = {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in expected.items()}
    for weights in (expected, as_comfyui_saves, diffusers_flux()):
        found = to_bfl({prefix + name: tensor for name, tensor in weights.items()})
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_all_in_one_checkpoint_gives_its_transformer_only() -> None:
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in flux().items()}
    assert to_bfl(weights | {f"vae.{name}": tensor for name, tensor in vae().items()}).keys() == flux().keys()


def test_only_what_has_to_be_joined_is_copied(tmp_path: Path) -> None:
    """Released names come back as the very tensors, memory-mapped ones too; diffusers' copy q, k, v and one layer."""
    save_file(flux(), tmp_path / "x.safetensors")
    mapped = load_file(tmp_path / "x.safetensors")
    assert all(tensor is mapped[name] for name, tensor in to_bfl(mapped).items())
    weights = diffusers_flux()
    given = {tensor.data_ptr() for tensor in weights.values()}
    copied = {name.rpartition(".")[0] for name, t in to_bfl(weights).items() if t.data_ptr() not in given}
    assert all(name.endswith(("qkv", "linear1", "adaLN_modulation.1")) for name in copied)


@pytest.mark.parametrize("make", [flux, diffusers_flux])
def test_what_is_given_is_not_changed(make: object) -> None:
    weights = make()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    to_bfl(weights)
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[name], before[name]) for name in before)


def scaled_diffusers(scale: dict[str, float]) -> dict[str, torch.Tensor]:
    """Scaled fp8 (layout b) in diffusers' names, with the scale of each layer by the end of its name, else 0.25."""
    weights = {name: tensor.float() for name, tensor in diffusers_flux().items()}
    for name in [name for name in weights if "blocks" in name and weights[name].dim() == 2]:
        layer = name.removesuffix(".weight")
        factor = next((value for end, value in scale.items() if layer.endswith(end)), 0.25)
        weights[name] = (weights[name] / factor).to(FP8)
        weights[f"{layer}.scale_weight"] = torch.tensor(factor)
        weights[f"{layer}.scale_input"] = torch.tensor(2.0 if layer.endswith("to_k") else 1.5)
    return weights | {"scaled_fp8": torch.zeros(2, dtype=FP8)}


def test_parts_with_one_scale_stay_fp8_when_joined() -> None:
    found = to_bfl(scaled_diffusers({}))
    layer = "double_blocks.0.img_attn.qkv"
    assert found[f"{layer}.weight"].dtype == FP8
    assert found[f"{layer}.weight_scale"] == 0.25
    assert found[f"{layer}.input_scale"] == 2.0
    assert bytes(found[f"{layer}.comfy_quant"].tolist()).startswith(b'{"format": "float8_e4m3fn"')


@pytest.mark.parametrize("scale", [{}, {"to_k": 0.5}, {"to_k": 0.37, "proj_mlp": 1.1, "proj_out": 0.7}])
def test_scaled_fp8_in_diffusers_names_keeps_its_weights(scale: dict[str, float]) -> None:
    """Joined before or after dequantising, the weights are the same to the last bit of bf16."""
    weights = scaled_diffusers(scale)
    expected = to_bfl(dequantize(weights))
    found = dequantize(to_bfl(weights))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_plain_fp8_in_diffusers_names_stays_fp8() -> None:
    weights = {name: t.to(FP8) if t.dim() == 2 else t for name, t in diffusers_flux().items()}
    found = to_bfl(weights)
    assert all(tensor.dtype == FP8 for tensor in found.values() if tensor.dim() == 2)
    assert torch.equal(
        found["double_blocks.1.txt_attn.qkv.weight"].float(),
        flux()["double_blocks.1.txt_attn.qkv.weight"].to(FP8).float(),
    )


def test_weights_that_are_no_whole_transformer_are_refused() -> None:
    weights = diffusers_flux()
    del weights["single_transformer_blocks.2.attn.to_v.bias"]
    with pytest.raises(Flux1Error, match=r"missing: single_transformer_blocks\.2\.attn\.to_v\.bias"):
        to_bfl(weights)
    with pytest.raises(Flux1Error, match="VAE"):
        to_bfl(vae())
