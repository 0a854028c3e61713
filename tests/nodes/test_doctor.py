"""The doctor on the real server: what ComfyUI lists, and runs whose settings are right or off."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.nodes.graphs import encoders, model, prompt
from workflows.client import Client, Result
from workflows.graph import GraphBuilder, Link


def diagnosed(server: Client, add: GraphBuilder, **inputs: Link) -> tuple[str, dict[str, Any], str, Result]:
    """The doctor's lines, data and page, and the run."""
    page, data = add("Flux1Doctor", **{"width": 512, "height": 512, **inputs})[:2]
    shown = [add("PreviewAny", source=text)[0][0] for text in (page, data)]
    result = server.run(add.graph)
    page_text, data_text = (result.outputs[node]["text"][0] for node in shown)
    return result.outputs[page[0]]["text"][0], json.loads(data_text), page_text, result


def texts(data: dict[str, Any]) -> str:
    return "\n".join(finding["text"] for finding in data["findings"])


def test_every_file_that_the_loaders_offer_is_listed_and_every_task_can_be_run(server: Client):
    lines, data, page, _ = diagnosed(server, GraphBuilder())
    listed = {(file["folder"], file["name"]) for file in data["files"]}
    offered = {
        (folder, name)
        for node, value, folder in (
            ("Flux1LoadModel", "model_name", "diffusion_models"),
            ("Flux1LoadTextEncoders", "t5_name", "text_encoders"),
            ("Flux1LoadVAE", "vae_name", "vae"),
            ("Flux1LoadLora", "lora_name", "loras"),
            ("StyleModelLoader", "style_model_name", "style_models"),
            ("CLIPVisionLoader", "clip_name", "clip_vision"),
        )
        for name in options_of(server, node, value)
    }
    assert {each for each in listed if each[0] != "depth_anything"} == offered and len(offered) > 9
    assert all(task["ready"] for task in data["tasks"])
    assert lines.count("✓") == 8 and page.startswith("# FLUX.1 Doctor: 8 of 8")
    assert data["size"] == [512, 512] and data["device"]["dtype"] == "float32"  # the server's --fp32-unet


def options_of(server: Client, node: str, value: str) -> list[str]:
    """The choices, which nodes of the old kind have in place of the input's type."""
    kind, *settings = server.get(f"/object_info/{node}")[node]["input"]["required"][value]
    return settings[0]["options"] if kind == "COMBO" else kind


def test_it_looks_anew_at_each_run_and_names_a_broken_file_that_has_come(server: Client, models: Path):
    _, data, _, _ = diagnosed(server, GraphBuilder())
    file = models / "diffusion_models" / "flux1-broken.safetensors"
    file.write_text("<!doctype html>")
    try:
        lines, broken, page, result = diagnosed(server, GraphBuilder())
    finally:
        file.unlink()
    assert not result.cached
    assert file.name not in texts(data) and f"diffusion_models/{file.name}" in texts(broken)
    assert "HTML" in lines and "HTML" in page and all(task["ready"] for task in broken["tasks"])


def test_a_missing_file_is_said_with_where_it_is_to_be_had(server: Client, models: Path):
    file = models / "vae" / "ae.safetensors"
    hidden = file.rename(file.with_suffix(".hidden"))
    try:
        lines, _, page, _ = diagnosed(server, GraphBuilder())
    finally:
        hidden.rename(file)
    assert "✗ Text to image: lacks the VAE" in lines
    assert "from https://huggingface.co/" in page.split("## To get")[1].split("##")[0]


def test_a_run_as_the_authors_run_it_has_nothing_to_look_at(server: Client):
    add = GraphBuilder()
    dev = model(add, "Flux1LoadModel")
    clip, _ = encoders(add)
    positive = add("Flux1TextEncode", clip=clip, model=dev, prompt="a lake", guidance=3.5)[0]
    latent = add("Flux1EmptyLatent", preset="custom", width=768, height=512, batch_size=1)[0]
    sigmas = add("Flux1Scheduler", latent=latent, steps=20, strength=1.0, model=dev)[0]
    _, data, _, _ = diagnosed(server, add, model=dev, conditioning=positive, sigmas=sigmas, latent=latent)
    assert data["size"] == [768, 512]
    assert [text for text in texts(data).splitlines() if "ComfyUI runs with" not in text] == []


def test_a_fill_model_in_ComfyUI_s_text_to_image_graph_has_much_to_look_at(server: Client):
    add = GraphBuilder()
    fill = model(add, "Flux1LoadModel", "flux1-fill-dev.safetensors")
    clip, _ = encoders(add)
    latent = add("EmptyLatentImage", width=512, height=512, batch_size=1)[0]
    sigmas = add("BasicScheduler", model=fill, scheduler="normal", steps=4, denoise=1.0)[0]
    lines, data, _, _ = diagnosed(
        server, add, model=fill, conditioning=prompt(add, clip), sigmas=sigmas, latent=latent
    )  # fmt: skip
    found = texts(data)
    for words in ("guidance: 3.5, fill is made for 30", "shown no picture", "4 steps", "mu 0.63", "4 channels"):
        assert words in found and words in lines


def test_a_model_that_is_no_flux_1_is_an_error_and_nothing_else_of_the_run_is_judged(pack):
    from comfy.model_patcher import ModelPatcher
    from flux1.nodes.doctor import settings

    other = torch.nn.Module()
    other.model_config = SimpleNamespace(unet_config={"image_model": "chroma"})
    cpu = torch.device("cpu")
    conditioning = [[torch.zeros(1, 4, 8), {}]]
    (finding,) = settings(ModelPatcher(other, cpu, cpu), conditioning, torch.tensor([1.0, 0.0]), None, (512, 512))
    assert finding.level == "error" and "not FLUX.1: it is Module" in finding.text and "Flux1LoadModel" in finding.fix


OPENED: list[str] = []
LISTENING: list[bool] = []


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    if LISTENING and event == "open" and isinstance(arguments[0], str | Path):
        OPENED.append(str(arguments[0]))


def test_nothing_is_opened_outside_the_model_folders(pack, models: Path):
    from flux1.nodes.doctor import files

    sys.addaudithook(listen)
    LISTENING.append(True)
    found = [*files()]
    LISTENING.clear()
    assert len(OPENED) >= len(found) > 10
    assert all(Path(path).is_relative_to(models) for path in OPENED), OPENED


@pytest.mark.parametrize("option", ["cache_none", "use_quad_cross_attention", "fp16_vae"])
def test_an_option_of_comfyui_that_costs_is_named_where_it_was_given(
    pack, monkeypatch: pytest.MonkeyPatch, option: str
):
    from comfy.cli_args import args
    from flux1.nodes.bridge import check_options

    def said() -> bool:
        return any(f"--{option.replace('_', '-')}:" in finding.text for finding in check_options(0))

    assert not said()
    monkeypatch.setattr(args, option, True)
    assert said()


@pytest.mark.parametrize("side", [8, 100_000])
def test_a_size_out_of_range_is_refused_when_queued(server: Client, side: int):
    from workflows.connection import RunError

    add = GraphBuilder()
    add("Flux1Doctor", width=side, height=512)
    with pytest.raises(RunError, match="width"):
        server.run(add.graph)
