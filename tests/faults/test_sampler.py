"""Samplers and schedules: bad settings are refused, NaN is found at its step, odd sizes are what they say."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.faults.running import (
    DEV,
    FRESH,
    OURS,
    Place,
    events,
    faulty_model,
    finite,
    graph_of,
    picture_of,
    refused,
    sampled,
    written,
)
from tests.nodes.graphs import encoders, ksampler, latent_of, model, prompt
from workflows.graph import GraphBuilder, Link

pytestmark = pytest.mark.usefixtures("alive")


def shifted_by_hand(shift: float) -> Callable:
    return lambda add, flux: add(
        "ModelSamplingFlux", model=flux, max_shift=shift, base_shift=shift, width=16, height=16
    )[0]


def stock(add: GraphBuilder, file: str = DEV, *changes: Callable, sampler: str = "KSampler", **settings: Any) -> Link:
    """ComfyUI's samplers on our MODEL."""
    clip, _ = encoders(add)
    flux = model(add, "Flux1LoadModel", file)
    for change in changes:
        flux = change(add, flux)
    samples = settings.pop("latent", None) or add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
    seed = next(FRESH)
    if sampler == "KSampler":
        return ksampler(add, flux, prompt(add, clip), prompt(add, clip, ""), samples, seed=seed, **settings)
    return add(
        "SamplerCustomAdvanced",
        noise=add("RandomNoise", noise_seed=seed)[0],
        guider=add("BasicGuider", model=flux, conditioning=prompt(add, clip))[0],
        sampler=add("KSamplerSelect", sampler_name=settings.get("sampler_name", "euler"))[0],
        sigmas=add("BasicScheduler", model=flux, scheduler="simple", steps=settings.get("steps", 3), denoise=1.0)[0],
        latent_image=samples,
    )[0]


@pytest.mark.parametrize("steps", [0, -1, float("nan"), "abc", 10_001], ids=str)
def test_S01_steps_out_of_range_are_refused_with_the_range(place: Place, steps):
    status, answer = place.client.post("/prompt", {"prompt": graph_of(lambda add: sampled(add, steps=steps))})
    (node,) = json.loads(answer)["node_errors"].values()
    assert status == 400 and node["class_type"] == "Flux1Sampler"
    (_, config) = node["errors"][0]["extra_info"]["input_config"]
    assert (config["min"], config["max"]) == (1, 10_000)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_S02_seeds_out_of_range_are_refused(place: Place, seed):
    refused(place, graph_of(lambda add: sampled(add, seed=seed)), "seed", status=400)


SCHEDULER = {"shift": "by hand", "curve": "cubic", "strength_mode": "half"}


def scheduled(add: GraphBuilder, latent_size: int = 64, **settings: Any) -> Link:
    samples = add("Flux1EmptyLatent", preset="custom", width=latent_size, height=latent_size, batch_size=1)[0]
    sigmas = add("Flux1Scheduler", latent=samples, steps=3, strength=1.0, **settings)[0]
    return sampled(add, sigmas=sigmas, latent=samples)


@pytest.mark.parametrize("name", SCHEDULER)
def test_S03_an_unknown_choice_is_refused_with_all_there_are(place: Place, name):
    choices = {"shift": "by size", "curve": "exponential", "strength_mode": "skip steps"}
    graph = graph_of(lambda add: scheduled(add, **{name: SCHEDULER[name]}))
    refused(place, graph, SCHEDULER[name], choices[name], status=400)


def test_S03_so_is_an_unknown_kind_of_noise(place: Place):
    refused(place, graph_of(lambda add: sampled(add, noise="pink")), "pink", "comfyui", "bfl", status=400)


@pytest.mark.parametrize("sampler", ["KSampler", "SamplerCustomAdvanced"])
@pytest.mark.parametrize("shift", [20.0, 100.0])
def test_S04_a_shift_that_leaves_no_schedule_is_refused_in_comfyui_s_samplers_too(place: Place, sampler, shift):
    graph = graph_of(lambda add: stock(add, DEV, shifted_by_hand(shift), sampler=sampler))
    assert refused(place, graph, "sigmas", "shift", *OURS).node_type == sampler


def test_S04_the_largest_shift_of_our_scheduler_still_paints(place: Place):
    settings = {"shift": "constant", "constant_shift": 100.0}
    (image,) = place.client.run(picture_of(lambda add: scheduled(add, 16, **settings))).images
    assert finite(image)


def test_S04_levels_of_another_model_are_refused(place: Place):
    def graph(add: GraphBuilder) -> Link:
        sigmas = add("KarrasScheduler", steps=3, sigma_max=14.6, sigma_min=0.03, rho=7.0)[0]
        return sampled(add, sigmas=sigmas)

    assert refused(place, graph_of(graph), "sigmas", "14.6", *OURS).node_type == "Flux1Sampler"


def test_S06_odd_sizes_are_stated_and_shift_and_sampler_see_the_same(place: Place):
    """17 x 33 becomes 32 x 48: with the schedule of that size the picture is the same bit for bit."""

    def graph(add: GraphBuilder, seed: int, with_sigmas: bool) -> Link:
        samples = add("Flux1EmptyLatent", preset="custom", width=17, height=33, batch_size=1)[0]
        settings = {}
        if with_sigmas:
            whole = add("Flux1EmptyLatent", preset="custom", width=32, height=48, batch_size=1)[0]
            flux = model(add, "Flux1LoadModel")
            settings["sigmas"] = add("Flux1Scheduler", latent=whole, steps=3, strength=1.0, model=flux)[0]
        return sampled(add, latent=samples, seed=seed, **settings)

    seed = next(FRESH)
    results = [place.client.run(picture_of(lambda add, own=own: graph(add, seed, own))) for own in (False, True)]
    assert [result.images[0].size for result in results] == [(32, 48)] * 2
    assert results[0].images[0].tobytes() == results[1].images[0].tobytes()
    assert any("32 x 48" in text for output in results[0].outputs.values() for text in output.get("text", []))


@pytest.mark.parametrize("by", [sampled, stock], ids=["Flux1Sampler", "KSampler"])
def test_S07_a_latent_of_four_channels_is_converted_when_empty_and_else_refused(place: Place, by):
    def graph(add: GraphBuilder, empty: bool) -> Link:
        name = written(place, torch.zeros(1, 4, 8, 8) if empty else torch.randn(1, 4, 8, 8))
        return by(add, latent=add("LoadLatent", latent=name)[0])

    place.client.run(graph_of(lambda add: graph(add, empty=True)))
    refused(place, graph_of(lambda add: graph(add, empty=False)), "16 channels", "4 channels", *OURS)


@pytest.mark.parametrize("sampler_name", ["euler", "heun", "dpmpp_2m", "uni_pc"])
@pytest.mark.parametrize("sampler", ["KSampler", "SamplerCustomAdvanced"])
def test_S08_nan_is_named_at_its_step_in_comfyui_s_samplers_too(place: Place, sampler, sampler_name):
    settings = {"sampler": sampler, "sampler_name": sampler_name, "steps": 4}
    graph = graph_of(lambda add: stock(add, DEV, faulty_model(2, "nan"), **settings))
    assert refused(place, graph, "nan", "step 2", *OURS).node_type == sampler


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_S08_nan_is_named_at_its_step(place: Place, step):
    graph = graph_of(lambda add: sampled(add, DEV, faulty_model(step, "nan"), steps=6))
    assert refused(place, graph, "non-finite", f"step {step}.", *OURS).node_type == "Flux1Sampler"


def test_S08_a_run_that_went_wrong_is_stopped_soon(place: Place):
    graph = graph_of(lambda add: sampled(add, DEV, faulty_model(3, "nan"), steps=50))
    heard = events(place, graph)
    assert heard[-1]["type"] == "execution_error"
    assert max(event["data"]["value"] for event in heard if event["type"] == "progress") <= 4


def test_S08_also_with_a_model_that_comfyui_loaded(place: Place):
    def graph(add: GraphBuilder) -> Link:
        flux = faulty_model(2, "nan")(add, model(add, "UNETLoader"))
        latent = add("Flux1EmptyLatent", preset="custom", width=64, height=64, batch_size=1)[0]
        clip, _ = encoders(add)
        inputs = {"steps": 4, "strength": 1.0, "seed": next(FRESH)}
        return add("Flux1Sampler", model=flux, positive=prompt(add, clip), latent=latent, **inputs)[0]

    refused(place, graph_of(graph), "nan", "step 2", *OURS)


def test_S08_nan_that_comes_with_the_latent_is_told_from_the_model_s(place: Place):
    name = written(place, torch.full((1, 16, 8, 8), float("nan")))
    graph = graph_of(lambda add: sampled(add, latent=add("LoadLatent", latent=name)[0]))
    refused(place, graph, "latent to start from", "nan", *OURS)


def test_S08_nan_that_comes_with_a_reference_is_told_from_the_model_s(place: Place):
    name = written(place, torch.full((1, 16, 8, 8), float("nan")))

    def graph(add: GraphBuilder) -> Link:
        clip, _ = encoders(add)
        seen = add("ReferenceLatent", conditioning=prompt(add, clip), latent=add("LoadLatent", latent=name)[0])[0]
        empty = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
        return ksampler(add, model(add, "Flux1LoadModel"), seen, seen, empty)

    refused(place, graph_of(graph), "conditioning", "reference_latents", "nan", *OURS)


@pytest.mark.parametrize("by", [lambda add, **given: sampled(add, strength=0.0, **given),
                                lambda add, **given: stock(add, denoise=0.0, **given)], ids=["Flux1Sampler", "KSampler"])  # fmt: skip
def test_S09_strength_zero_gives_the_latent_back(place: Place, by):
    given = torch.randn(1, 16, 6, 8)
    name = written(place, given)
    add = GraphBuilder()
    painted = by(add, latent=add("LoadLatent", latent=name)[0])
    assert torch.equal(latent_of(place.running, place.client, add, painted), given)


def test_S11_cfg_with_an_empty_negative_paints(place: Place):
    def graph(add: GraphBuilder) -> Link:
        clip, _ = encoders(add)
        return sampled(add, negative=prompt(add, clip, ""), cfg=7.0)

    (image,) = place.client.run(picture_of(graph)).images
    assert finite(image)


@pytest.mark.parametrize("by", [sampled, stock], ids=["Flux1Sampler", "KSampler"])
def test_S14_one_progress_message_a_step_each_of_this_run(place: Place, by):
    """Where a step takes 0.1 s or more: ComfyUI itself leaves others out."""
    heard = events(place, graph_of(lambda add: by(add, DEV, faulty_model(0, "slow"), steps=7)))
    (run,) = {event["data"]["prompt_id"] for event in heard if "prompt_id" in event["data"]}
    progress = [event["data"] for event in heard if event["type"] == "progress"]
    steps = [each for each in progress if each["max"] == 7]
    assert [each["value"] for each in steps] == [1, 2, 3, 4, 5, 6, 7]
    assert {each["prompt_id"] for each in progress} == {run}
