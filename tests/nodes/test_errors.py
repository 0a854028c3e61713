"""Runs that are refused or interrupted by the sampler, and the run after."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from tests.nodes.graphs import GraphBuilder, encoders, latent_of, model, prompt
from workflows.client import Client, RunError
from workflows.server import Server


def sampled(file: str = "flux1-dev.safetensors", **settings) -> Callable:
    def graph(add: GraphBuilder):
        clip, _ = encoders(add)
        latent = add("Flux1EmptyLatent", preset="custom", width=64, height=64, batch_size=1)[0]
        inputs = {"seed": 1, "steps": 2, "strength": 1.0, "latent": latent, **settings}
        return add("Flux1Sampler", model=model(add, "Flux1LoadModel", file), positive=prompt(add, clip), **inputs)[0]

    return graph


def test_cfg_without_a_negative_prompt_is_refused(running: Server, server: Client):
    add = GraphBuilder()
    with pytest.raises(RunError, match=r"Flux1Sampler.*negative.*Expected:.*Found:.*Fix:"):
        latent_of(running, server, add, sampled(cfg=3.0)(add))


def test_an_interrupted_run_leaves_no_trace(running: Server, server: Client):
    """The same prompt, run after an interruption, gives the same latent bit for bit; its sampler really ran."""
    import threading
    import time

    def run(seed: int, steps: int = 6) -> torch.Tensor:
        add = GraphBuilder()
        return latent_of(running, server, add, sampled(seed=seed, steps=steps)(add))

    before = run(501)

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not server.get("/queue")["queue_running"]:
            time.sleep(0.05)
        time.sleep(1.0)
        server.post("/interrupt")

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(RunError, match="interrupted"):
        run(502, steps=2000)
    helper.join()
    run(503)  # another seed: the next one must not come out of the server's cache
    assert torch.equal(run_fresh(running, server, 501), before)


def run_fresh(running: Server, server: Client, seed: int) -> torch.Tensor:
    """As `sampled`, on nodes that the server has not cached."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    add = GraphBuilder()
    latent = sampled(seed=seed, steps=6)(add)
    saver = add("SaveLatent", samples=latent, filename_prefix="test/fresh")[0][0]
    result = server.run(add.graph)
    assert latent[0] not in result.cached
    (saved,) = result.outputs[saver]["latents"]
    return load_file(running.output / saved["subfolder"] / saved["filename"])["latent_tensor"]
