"""The graph editor with this pack: workflow files in both forms, nodes found, wired and taken back, what they report."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from painter.family import PARAMS
from tests.browser.editor import Editor, without_meta
from tests.flux_core.lora_samples import kohya, random_lora
from workflows.client import Client
from workflows.graph import GraphBuilder

# For every node of ours, at which place the editor's search finds it for each of its aliases; -1: not at all.
PLACES = """() => {
  const pinia = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia;
  const {nodeDefsByName, nodeSearchService} = pinia._s.get('nodeDef');
  const place = (alias, name) => nodeSearchService.searchNode(alias, [], {limit: 64}).findIndex(node => node.name === name);
  return Object.fromEntries(Object.values(nodeDefsByName).filter(({name}) => name.startsWith('Flux1')).map(
    ({name, search_aliases}) => [name, Object.fromEntries(search_aliases.map(alias => [alias, place(alias, name)]))]));
}"""

# What the nodes of the open graph say under their widgets.
REPORTS = """() => app.graph.nodes.flatMap(({id, type, widgets}) => (widgets ?? []).filter(
  ({name, element}) => name === '$$node-text-preview').map(({value}) => [type, value]))"""


def stock_graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
    }


def classes(editor: Editor) -> list[str]:
    return sorted(node["class_type"] for node in editor.to_api().values())


def test_api_to_ui_and_back_changes_nothing(editor: Editor, server: Client, tmp_path: Path) -> None:
    graph = stock_graph()
    (tmp_path / "api.json").write_text(json.dumps(graph))
    editor.open(tmp_path / "api.json")
    (tmp_path / "ui.json").write_text(json.dumps(editor.to_ui()))
    editor.open(tmp_path / "ui.json")
    assert without_meta(editor.to_api()) == graph
    assert not editor.complaint()
    assert server.run(editor.to_api()).images[0].getpixel((0, 0)) == (0, 0, 255)


def test_a_missing_node_is_complained_about(editor: Editor, tmp_path: Path) -> None:
    graph = stock_graph() | {"3": {"class_type": "NoSuchNode", "inputs": {"image": ["1", 0]}}}
    (tmp_path / "api.json").write_text(json.dumps(graph))
    editor.open(tmp_path / "api.json")
    assert "NoSuchNode" in editor.complaint() or "missing" in editor.complaint().lower()


def test_every_alias_finds_its_node(editor: Editor) -> None:
    """And one of them among the first ten."""
    places = editor.page.evaluate(PLACES)
    assert places
    for node, aliases in places.items():
        assert 0 <= min(aliases.values()) < 10, f"{node}: {aliases}"


def test_nodes_are_found_by_an_alias_wired_by_dragging_and_taken_back(editor: Editor) -> None:
    editor.blank()
    loader = editor.place("dual clip loader", "FLUX.1 Load Text Encoders", (700, 500))
    assert classes(editor) == ["Flux1LoadTextEncoders"]
    encoder = editor.place("flux guidance", "FLUX.1 Text Encode", (1300, 500))
    assert "clip" not in editor.to_api()[encoder]["inputs"]
    editor.connect(loader, "CLIP", encoder, "clip")
    assert editor.to_api()[encoder]["inputs"]["clip"] == [loader, 0]
    editor.screenshot("added_by_search")
    editor.page.keyboard.press("Control+z")
    editor.page.wait_for_function("app.graph.links.size === 0")
    assert classes(editor) == ["Flux1LoadTextEncoders", "Flux1TextEncode"]
    editor.page.keyboard.press("Control+z")
    editor.page.wait_for_function("app.graph.nodes.length === 1")
    assert classes(editor) == ["Flux1LoadTextEncoders"]
    editor.page.keyboard.press("Control+y")
    editor.page.wait_for_function("app.graph.nodes.length === 2")


@pytest.fixture
def reporting(server: Client, models: Path) -> dict[str, Any]:
    """A graph whose nodes have something to tell: a LoRA, a prompt that is cut, two references."""
    torch.manual_seed(0)
    (models / "loras").mkdir(exist_ok=True)
    save_file(kohya(random_lora(PARAMS)), models / "loras" / "reporting.safetensors")
    add = GraphBuilder()
    clip = add("Flux1LoadTextEncoders", t5_name="t5xxl_fp16.safetensors", clip_name="clip_l.safetensors")[0]
    vae = add("Flux1LoadVAE", vae_name="ae.safetensors")[0]
    model = add("Flux1LoadModel", model_name="flux1-schnell.safetensors", weight_dtype="default", variant="auto")[0]
    model = add("Flux1LoadLora", model=model, lora_name="reporting.safetensors", strength="by file")[0]
    words = "a red tree " * 90 + "a lost house"
    prompt = add("Flux1TextEncode", clip=clip, prompt=words, guidance=3.5, model=model)[0]
    names = [server.upload(Image.new("RGB", (64, 48), colour), f"{colour}.png") for colour in ("red", "blue")]
    images = {f"images.image{i}": add("LoadImage", image=name)[0] for i, name in enumerate(names)}
    positive, latent, *_ = add("Flux1KontextReference", conditioning=prompt, vae=vae, sizing="own size", **images)
    painted = add("Flux1Sampler", model=model, positive=positive, latent=latent, seed=1, steps=1, strength=1.0)[0]
    add("SaveImage", images=add("Flux1DecodeImage", latent=painted, vae=vae)[0], filename_prefix="reporting")
    return add.graph


def test_what_nodes_report_stands_under_them(editor: Editor, reporting: dict[str, Any], tmp_path: Path) -> None:
    """LoRA: what was loaded; prompt: what was cut; Kontext: what references cost."""
    (tmp_path / "api.json").write_text(json.dumps(reporting))
    editor.command("Comfy.RefreshNodeDefinitions")  # R: the new files are listed
    editor.open(tmp_path / "api.json")
    editor.run()
    editor.fit()
    reports = dict(editor.page.evaluate(REPORTS))
    editor.page.wait_for_timeout(500)
    editor.screenshot("reports")
    wanted = {
        "Flux1LoadLora": "keys loaded",
        "Flux1TextEncode": "only 256 fit: cut off from",
        "Flux1KontextReference": "2 reference(s)",
    }
    assert reports.keys() == wanted.keys()
    for node, words in wanted.items():
        assert words in reports[node]
        assert editor.page.get_by_text(reports[node]).is_visible()
