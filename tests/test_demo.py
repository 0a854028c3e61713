"""The demo's part after set-up: the bundled workflows on a real photograph through the real server."""

import json
from pathlib import Path

import numpy
from PIL import Image

import demo
from workflows.client import Client


def test_both_workflows_run_on_a_photograph(server: Client, tmp_path: Path):
    demo.paint(server, tmp_path)
    results = sorted(path.name for path in tmp_path.glob("*_?.png"))
    assert results == ["fill_inpaint_1.png", "kontext_edit_1.png", "kontext_edit_2.png"]
    for name in results:
        picture = Image.open(tmp_path / name)
        assert picture.size == demo.SIZE
        assert numpy.asarray(picture).std() > 1
    assert Image.open(tmp_path / "contact_sheet.png").width >= 3 * demo.SIZE[0]


def test_the_demo_changes_nothing_but_pictures_seed_and_size():
    changed = {"image", "seed", "sizing"}
    for name in demo.WORKFLOWS:
        bundled = demo.read_graph(demo.ROOT / "workflows" / "api" / f"{name}.json")
        adapted = demo.adapted(json.loads(json.dumps(bundled)), "photograph.png")
        for key, node in bundled.items():
            others = {k: v for k, v in node["inputs"].items() if k not in changed}
            assert others == {k: v for k, v in adapted[key]["inputs"].items() if k not in changed}


def test_the_bundled_workflows_are_the_two_tests():
    """The original tests' files, prompt and models."""
    fill, kontext = (
        {
            node["class_type"]: node["inputs"]
            for node in demo.read_graph(demo.ROOT / f"workflows/api/{name}.json").values()
        }
        for name in demo.WORKFLOWS
    )
    assert fill["Flux1LoadModel"]["model_name"] == "flux1-fill-dev.safetensors"
    prompt = "Please backfill the missing parts of the picture, only the natural landscape"
    assert fill["Flux1TextEncode"]["prompt"] == prompt
    assert kontext["Flux1LoadModel"]["model_name"] == "flux1-dev-kontext_fp8_scaled.safetensors"
    for graph in (fill, kontext):
        assert graph["Flux1LoadTextEncoders"]["t5_name"] == "t5xxl_fp16.safetensors"
        assert graph["Flux1LoadTextEncoders"]["clip_name"] == "clip_l.safetensors"
        assert graph["Flux1LoadVAE"]["vae_name"] == "ae.safetensors"
