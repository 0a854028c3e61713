"""Compiled blocks paint the same, from a handful of graphs for all blocks, sizes, seeds and prompts."""

import pytest
import torch

from tests.nodes.test_constants import conditioning


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


@pytest.fixture
def graphs(pack, monkeypatch):
    """Counts the graphs that torch.compile makes, and runs them as they are: no compiler is needed."""
    from flux1.nodes.bridge import transformer
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    transformer.compiled.cache_clear()
    counter, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend=counter))
    yield counter
    transformer.compiled.cache_clear()
    torch._dynamo.reset()


def sampled(model, seed=3, size=(16, 12), **prompt) -> torch.Tensor:
    import comfy.sample

    latent, words = torch.zeros(1, 16, *size), conditioning(**prompt)
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", words, words, latent, disable_pbar=True, seed=seed
    )


@pytest.mark.parametrize("file", ["flux1-dev.safetensors", "flux1-schnell.safetensors"])
def test_the_same_picture_from_few_graphs(graphs, file):
    from flux1.nodes.loaders import Flux1LoadModel

    plain = Flux1LoadModel.execute(file, "default", "auto")[0]
    compiled = Flux1LoadModel.execute(file, "default", "auto", compile_blocks=True)[0]
    wanted = sampled(plain)
    assert graphs.frame_count == 0
    error = ((sampled(compiled) - wanted).norm() / wanted.norm()).item()
    assert error < 1e-5

    blocks = plain.model.diffusion_model
    first = graphs.frame_count
    assert 0 < first <= 8 < 3 * (len(blocks.double_blocks) + len(blocks.single_blocks))
    sampled(compiled, seed=4, guidance=2.0)
    assert graphs.frame_count == first  # neither a seed nor a prompt

    sampled(compiled, size=(24, 16))
    dynamic = graphs.frame_count
    assert dynamic <= 2 * first
    for size in ((12, 12), (32, 16), (20, 28)):
        sampled(compiled, size=size)
    assert graphs.frame_count == dynamic  # nor a third size
