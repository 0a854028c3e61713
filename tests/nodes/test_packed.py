"""Packed copies of weights paint what the weights paint, and never outlive them."""

import pytest
import torch

from tests.nodes.test_constants import conditioning

MODEL = "flux1-dev.safetensors"
CHANGED = "diffusion_model.single_blocks.1.linear2.weight"


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


def loaded(pack: str):
    from flux1.nodes.loaders import Flux1LoadModel

    return Flux1LoadModel.execute(MODEL, "bf16", "auto", compute_dtype="bf16", pack_weights=pack)[0]


def sampled(model, **prompt) -> torch.Tensor:
    """Two steps of a latent with more tokens than the fewest that are packed for."""
    import comfy.sample

    latent, words = torch.zeros(1, 16, 24, 16), conditioning(**prompt)
    noise = comfy.sample.prepare_noise(latent, 3)
    return comfy.sample.sample(model, noise, 2, 1.0, "euler", "simple", words, words, latent, disable_pbar=True, seed=3)


def layers(model) -> list:
    """Linear layers that hold a packed copy."""
    return [m for m in model.model.diffusion_model.modules() if getattr(m, "packed", None) is not None]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def change(model) -> dict[str, tuple]:
    """As a LoRA would change one block's MLP, in ComfyUI's form."""
    shape = model.model_state_dict()[CHANGED].shape
    return {CHANGED: ("diff", (torch.randn(shape, generator=torch.Generator().manual_seed(9)) * 3 / shape[1] ** 0.5,))}


def with_lora(model):
    patched = model.clone()
    assert patched.add_patches(change(model)) == [CHANGED]
    return patched


def test_packed_paints_the_same(pack):
    plain, packed = loaded("off"), loaded("on")
    found, wanted = sampled(packed), sampled(plain)
    assert layers(packed) and not layers(plain)
    assert error(found, wanted) < 1e-2


def test_a_loras_weights_are_packed_anew_and_gone_with_it(pack):
    plain, packed = loaded("off"), loaded("on")
    before, lora = sampled(packed), sampled(with_lora(packed))
    assert error(lora, before) > 0.05
    assert error(lora, sampled(with_lora(plain))) < 1e-2
    assert torch.equal(sampled(packed), before)


def test_weights_that_change_while_a_run_goes_on_are_not_packed(pack):
    import comfy.hooks

    plain, packed, hooks = loaded("off"), loaded("on"), comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(1.0)
    hook.weights, hook.need_weight_init = change(packed), False
    hooks.add(hook)
    before = sampled(packed)
    assert torch.equal(sampled(packed, hooks=hooks), sampled(plain, hooks=hooks))
    assert torch.equal(sampled(packed), before)


def test_other_types_and_single_tokens_are_left_as_they_are(pack):
    from flux1.nodes.bridge.packed import PackedOperations, weights_in_place

    layer = PackedOperations.Linear(64, 32, dtype=torch.bfloat16)
    torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
    many, one = torch.randn(1, 100, 64, dtype=torch.bfloat16), torch.randn(1, 1, 64, dtype=torch.bfloat16)
    layer(many)
    with weights_in_place("these"):
        layer(one)
        assert layer.packed is None
        result = layer(many)
        assert layer.packed[0] == "these"
        assert error(result.float(), torch.nn.functional.linear(many, layer.weight, layer.bias).float()) < 1e-2
        layer.float()(many.float())


def test_auto_asks_for_twice_the_room(pack):
    import psutil
    from flux1.nodes.bridge.packed import affordable

    half = psutil.virtual_memory().total // 2
    on_meta = [torch.empty(half + more, dtype=torch.uint8, device="meta") for more in (0, 4096)]
    assert affordable({"fits": on_meta[0]}) and not affordable({"too large": on_meta[1]})
