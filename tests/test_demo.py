"""The demo's part after set-up, and its workflows on a real photograph, through the real server."""

from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_image

import demo
from painter import showcase
from painter.painter import Painter
from painter.scenes import SIZE
from workflows.graph import read_graph


def test_the_demo_paints_both_workflows_and_the_prompts(painter: Painter, tmp_path: Path):
    demo.paint(painter.client, tmp_path)
    results = sorted(path.stem for path in tmp_path.glob("*_?.png"))
    assert results == [
        "fill_inpaint_1",
        "kontext_edit_1",
        "kontext_edit_2",
        *(f"text_to_image_{i}" for i in (1, 2, 3, 4)),
    ]
    for name in results:
        picture = Image.open(tmp_path / f"{name}.png")
        assert picture.size == (SIZE, SIZE)
        assert numpy.asarray(picture).std() > 10
    assert Image.open(tmp_path / "contact_sheet.png").width > 4 * demo.SHOWN


@pytest.mark.parametrize("name", demo.WORKFLOWS)
def test_a_photograph_of_any_size_comes_back_in_its_size(painter: Painter, name: str):
    """scikit-learn's china.jpg, by danielbuechele, CC BY 2.0."""
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((144, 96), Image.Resampling.LANCZOS)
    mask = Image.new("L", photograph.size)
    ImageDraw.Draw(mask).ellipse((80, 5, 122, 38), fill=255)
    for picture in showcase.run(painter.client, name, photograph, mask.filter(ImageFilter.GaussianBlur(2))).after:
        assert picture.size == photograph.size
        assert numpy.asarray(picture).std() > 10


def test_nothing_but_pictures_seed_and_size_is_changed_in_a_workflow():
    changed = {"image", "seed", "sizing"}
    for name in demo.WORKFLOWS:
        bundled = read_graph(demo.ROOT / "workflows" / "api" / f"{name}.json")
        adapted = showcase.adapted(bundled, {}, (64, 64))
        for key, node in bundled.items():
            others = {k: v for k, v in node["inputs"].items() if k not in changed}
            assert others == {k: v for k, v in adapted[key]["inputs"].items() if k not in changed}


def test_the_bundled_workflows_are_the_two_tests():
    """The original tests' files, prompt and models."""
    fill, kontext = (
        {node["class_type"]: node["inputs"] for node in read_graph(demo.ROOT / f"workflows/api/{name}.json").values()}
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
