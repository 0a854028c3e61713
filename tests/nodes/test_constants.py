"""What a run computes once is what every step would compute, whatever ComfyUI hangs into the model."""

import copy

import pytest
import torch

SIZE = (8, 6)  # latent cells
SAMPLERS = ["euler", "heun", "dpmpp_sde"]  # the last two ask for noise levels that are not in the schedule


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


@pytest.fixture
def model(pack):
    from flux1.nodes.loaders import Flux1LoadModel

    return Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]


def conditioning(seed: int = 1, guidance: float = 3.5, **values) -> list:
    generator = torch.Generator().manual_seed(seed)
    states, pooled = torch.randn(1, 12, 64, generator=generator), torch.randn(1, 64, generator=generator)
    return [[states, {"pooled_output": pooled, "guidance": guidance, **values}]]


def sampled(model, positive=None, negative=None, cfg=1.0, seed=3, batch=1, sampler="euler", steps=4) -> torch.Tensor:
    import comfy.sample

    latent = torch.zeros(batch, 16, *SIZE)
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = positive or conditioning(), negative or conditioning(2)
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "simple", positive, negative, latent, disable_pbar=True, seed=seed
    )


def forgetful(model):
    """The same MODEL without any memory: each step computes everything itself."""
    import comfy.patcher_extension

    plain = model.clone()
    plain.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "flux1_constants")
    return plain


def memory(model):
    return model.model.diffusion_model.constants


def same_bits(model, **settings) -> torch.Tensor:
    """With memory, twice, and without it: equal. Returns the latent."""
    first, again = sampled(model, **settings), sampled(model, **settings)
    rows = len(memory(model).rows)
    memory(model).rows.clear()
    without = sampled(forgetful(model), **settings)
    assert not memory(model).rows
    assert rows or settings.get("unremembered")
    assert torch.equal(first, without) and torch.equal(again, without)
    assert without.isfinite().all() and without.std() > 0.1
    return without


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_no_bit_changes(model, sampler, cfg):
    same_bits(model, sampler=sampler, cfg=cfg)


def test_no_bit_changes_in_bfloat16(pack):
    from flux1.nodes.loaders import Flux1LoadModel

    same_bits(Flux1LoadModel.execute("flux1-dev.safetensors", "bf16", "auto")[0])


def test_no_bit_changes_in_scaled_fp8(pack):
    from flux1.nodes.loaders import Flux1LoadModel

    same_bits(Flux1LoadModel.execute("flux1-dev-kontext_fp8_scaled.safetensors", "default", "auto")[0])


def test_no_bit_changes_with_batches_references_and_several_conditionings(model):
    reference = torch.randn(1, 16, 6, 6)
    areas = conditioning(5, area=(8, 3, 0, 0)) + conditioning(6, guidance=9.0)
    same_bits(model, batch=3, cfg=2.0, positive=conditioning(reference_latents=[reference]))
    same_bits(model, positive=areas)


def test_two_conditionings_that_differ_in_guidance_alone_are_told_apart(model):
    low, high = (sampled(model, positive=conditioning(guidance=guidance)) for guidance in (1.0, 30.0))
    assert not torch.equal(low, high)
    assert torch.equal(low, sampled(model, positive=conditioning(guidance=1.0)))


def test_a_new_seed_computes_no_modulation(model):
    sampled(model)
    for layer in model.model.diffusion_model.modulation_layers():
        layer.register_forward_hook(refuse)
    assert not torch.equal(sampled(model, seed=8), sampled(model, seed=9))


def refuse(module, inputs, output):
    raise AssertionError("a modulation layer was used")


def test_the_steps_themselves_use_no_modulation_layer(model):
    """All of them run before the first step."""
    log = []
    transformer = model.model.diffusion_model
    transformer.modulation_layers()[0].register_forward_hook(lambda *_: log.append("modulation"))
    transformer.final_layer.linear.register_forward_hook(lambda *_: log.append("step"))
    sampled(model, steps=3)
    assert log == ["modulation"] * 3 + ["step"] * 3


def test_text_is_projected_once_in_a_run(model):
    calls = []
    model.model.diffusion_model.txt_in.register_forward_hook(lambda *_: calls.append(1))
    sampled(model, steps=4)
    assert len(calls) == 1
    sampled(model, steps=4, cfg=3.0)
    assert len(calls) == 2  # both prompts in one batch


def changed_by(model, change) -> None:
    """A clone that `change` has worked on paints otherwise, with and without memory the same, and not for good."""
    before = sampled(model)
    other = model.clone()
    change(other)
    assert not torch.equal(sampled(other), before)
    same_bits(other)
    assert torch.equal(sampled(model), before)


def patch(model, strength=0.5) -> dict:
    key = "diffusion_model.double_blocks.0.img_mod.lin.weight"
    weight = model.model.state_dict()[key]
    return {key: (torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)) * strength,)}


def test_a_lora_on_a_modulation_layer_counts(model):
    changed_by(model, lambda other: other.add_patches(patch(other), 1.0))


def test_two_strengths_of_a_lora_are_two_sets_of_weights(model):
    weak, strong = model.clone(), model.clone()
    weak.add_patches(patch(model), 0.3)
    strong.add_patches(patch(model), 1.0)
    first, second = sampled(weak), sampled(strong)
    assert not torch.equal(first, second)
    assert torch.equal(first, sampled(weak)) and torch.equal(second, sampled(strong))


def test_a_replaced_modulation_layer_counts(model):
    name = "diffusion_model.single_blocks.1.modulation"

    def replace(other):
        layer = copy.deepcopy(other.get_model_object(name))
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.data = parameter * 1.5
        other.add_object_patch(name, layer)

    before, other = sampled(model), model.clone()
    replace(other)
    changed, again = sampled(other), sampled(forgetful(other))
    assert torch.equal(changed, again) and not torch.equal(changed, before)


def test_a_transformer_in_place_of_ours_is_left_alone(model):
    """As packs do that compile or quantise: it knows nothing of any memory."""

    class Other(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timestep, **given):
            return x * timestep.view(-1, 1, 1, 1)

    before, other = sampled(model), model.clone()
    other.add_object_patch("diffusion_model", Other())
    replaced = sampled(other)
    assert replaced.isfinite().all() and not torch.equal(replaced, before)
    assert torch.equal(sampled(model), before)


def test_a_hook_that_changes_weights_for_one_prompt_counts_for_that_prompt_alone(model):
    import comfy.hooks

    group = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0)
    hook.weights, hook.need_weight_init = patch(model), False
    group.add(hook)
    hooked = conditioning(1, hooks=group)
    plain = sampled(model)
    with_hook = sampled(model, positive=hooked)
    assert not torch.equal(with_hook, plain)
    assert torch.equal(with_hook, sampled(forgetful(model), positive=hooked))
    assert torch.equal(sampled(model), plain)


def test_an_injected_change_counts(model):
    from comfy.model_patcher import PatcherInjection

    layer = model.model.diffusion_model.single_blocks[0].modulation.lin
    handles = []
    injection = PatcherInjection(
        inject=lambda patcher: handles.append(layer.register_forward_hook(lambda m, i, output: output * 1.3)),
        eject=lambda patcher: handles.pop().remove(),
    )
    before, other = sampled(model), model.clone()
    other.set_injections("test", [injection])
    assert not torch.equal(sampled(other), before)
    assert torch.equal(sampled(model), before)


def test_a_block_replacement_gets_vec_and_may_change_it(model):
    """Such as nodes that weigh blocks: what they pass on is used, not what was known before."""

    def other_vec(args, extra):
        return extra["original_block"]({**args, "vec": args["vec"] * 1.2})

    changed_by(model, lambda other: other.set_model_patch_replace(other_vec, "dit", "double_block", 0))


def test_a_wrapper_that_changes_the_prompt_at_one_step_is_obeyed(model):
    from comfy.patcher_extension import WrappersMP

    seen = []

    def late(executor, x, timestep, context, *rest, **settings):
        seen.append(1)
        return executor(x, timestep, context * (2.0 if len(seen) % 4 == 3 else 1.0), *rest, **settings)

    changed_by(model, lambda other: other.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", late))


def test_memory_stays_bounded(model):
    from flux1.nodes.bridge.constants import ROWS_KEPT

    for guidance in range(1, 1 + ROWS_KEPT // 60):
        sampled(model, positive=conditioning(guidance=float(guidance)), steps=100)
        assert len(memory(model).rows) <= ROWS_KEPT
        assert not memory(model).prepared and memory(model).patcher is None
