"""Guidance that changes along a run, and true CFG in a part of it."""

import pytest
import torch


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model(pack):
    from flux1.nodes.loaders import Flux1LoadModel

    return Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]


def prompt(seed: int = 1, guidance: float = 3.5) -> list:
    torch.manual_seed(seed)
    return [[torch.randn(1, 12, 64), {"pooled_output": torch.randn(1, 64), "guidance": guidance}]]


def sampled(model, positive: list | None = None, **settings) -> torch.Tensor:
    from flux1.nodes.sampling import Flux1Sampler

    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    return Flux1Sampler.execute(model, positive or prompt(), latent, seed=4, steps=4, strength=1.0, **settings)[0][
        "samples"
    ]


def scheduled(model, guidance: str):
    from flux1.nodes.guidance import Flux1GuidanceSchedule

    return Flux1GuidanceSchedule.execute(model, guidance)[0]


def test_one_value_all_along_is_that_guidance(model):
    constant = sampled(model, prompt(guidance=9.0))
    assert torch.equal(sampled(scheduled(model, "9"), prompt(guidance=1.0)), constant)
    assert not torch.equal(sampled(model), constant)


def test_each_step_gets_its_own_guidance(model):
    different = sampled(scheduled(model, "1, 2, 3, 4"))
    assert not torch.equal(different, sampled(model))
    assert not torch.equal(different, sampled(scheduled(model, "4, 3, 2, 1")))


def test_guidance_that_is_no_number_is_refused(model):
    with pytest.raises(ValueError, match=r"guidance can't be read.*Expected:.*Found: high.*Fix:"):
        scheduled(model, "high")


def asked(model, **settings) -> list[int]:
    """How many conditionings each step asks for."""
    counts, other = [], model.clone()

    def watch(apply_model, given):
        counts.append(len(given["cond_or_uncond"]))
        return apply_model(given["input"], given["timestep"], **given["c"])

    other.set_model_unet_function_wrapper(watch)
    sampled(other, negative=prompt(2), cfg=3.0, **settings)
    return counts


def test_cfg_asks_for_the_negative_in_its_window_only(model):
    assert asked(model) == [2, 2, 2, 2]
    assert asked(model, cfg_end=0.5) == [2, 2, 1, 1]
    assert asked(model, cfg_start=0.25, cfg_end=0.75) == [1, 2, 2, 1]


def test_an_empty_window_is_no_cfg(model):
    assert torch.equal(sampled(model, negative=prompt(2), cfg=3.0, cfg_start=0.0, cfg_end=0.0), sampled(model))
