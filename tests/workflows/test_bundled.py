"""Every bundled workflow runs to its end, as it is but for its pictures and, where these don't set it, the size."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from workflows.client import Client
from workflows.graph import Graph, read_graph

API = Path(__file__).parents[2] / "workflows" / "api"
NAMES = sorted(file.stem for file in API.glob("*.json"))
SIZE = (64, 48)
SMALL = {  # what replaces a megapixel
    "Flux1EmptyLatent": {"width": SIZE[0], "height": SIZE[1]},
    "Flux1KontextReference": {"sizing": "own size"},
    "Flux1PadForOutpaint": {"left": 16, "right": 16},
}
SMALL_EDIT = {"kontext": {"sizing": "own size"}, "megapixels": {"megapixels": 0.01}}
PAINTED = {"fill_outpaint": (96, 48), "upscale_refine": (128, 96)}


def as_shipped(client: Client, name: str) -> Graph:
    """The workflow with pictures of ours, each in the place of the one it names."""
    graph = read_graph(API / f"{name}.json")
    for node in graph.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        if node["class_type"] == "Flux1PrepareEdit":
            node["inputs"] |= SMALL_EDIT[node["inputs"]["sizing"]]
    names = [node["inputs"]["image"] for node in graph.values() if node["class_type"] == "LoadImage"]
    for number, name in enumerate(names):
        client.upload(picture(number), name)
    return graph


def picture(seed: int) -> Image.Image:
    """Coarse noise with a hole."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).convert("RGBA")
    ImageDraw.Draw(image).ellipse((16, 12, 40, 36), fill=(0, 0, 0, 0))
    return image


@pytest.fixture(scope="module")
def painted(server: Client) -> Callable[[str], list[np.ndarray]]:
    """The pictures of a workflow, each painted once."""

    @cache
    def run(name: str) -> list[np.ndarray]:
        result = server.run(as_shipped(server, name))
        savers = {key for key, node in read_graph(API / f"{name}.json").items() if node["class_type"] == "SaveImage"}
        owners = [key for key, output in result.outputs.items() for _ in output.get("images", ())]
        pictures = dict(zip(owners, result.images, strict=True))
        return [np.asarray(pictures[key].convert("RGB"), np.int16) for key in sorted(savers)]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_it_paints_what_it_saves(name: str, painted: Callable) -> None:
    pictures = painted(name)
    assert pictures
    for pixels in pictures:
        width, height = PAINTED.get(name, SIZE)
        assert pixels.shape == (height, width, 3)
        assert pixels.std() > 3 and 0 < pixels.mean() < 255


def test_a_megapixel_is_painted_by_the_file_as_it_is(server: Client) -> None:
    """Of the others, whose many steps take minutes on a CPU, the size is another one above."""
    (painted,) = server.run(read_graph(API / "text_to_image_schnell.json")).images
    assert painted.size == (1024, 1024)
    assert np.asarray(painted.convert("RGB")).std() > 3


@pytest.mark.parametrize("name", ["inpaint_lossless", "kontext_box_edit"])
def test_an_edit_of_a_part_changes_no_bit_of_the_rest(name: str, painted: Callable) -> None:
    (after,), before = painted(name), np.asarray(picture(0).convert("RGB"), np.int16)
    part = np.zeros(before.shape[:2], bool)
    part[12 - 9 : 37 + 9, 16 - 9 : 41 + 9] = True  # the hole's box, grown and softened
    assert (after[~part] == before[~part]).all()
    assert (after != before)[12:37, 16:41].any(-1).mean() > 0.7  # of its box, a disc fills 78 %


@pytest.mark.parametrize("control", ["canny", "depth"])
def test_dev_with_the_control_lora_is_the_control_model(control: str, painted: Callable) -> None:
    """The tiny LoRA is what makes the tiny dev the tiny control model; prompt, map, seed and settings are the same."""
    (whole,), (lora,) = painted(f"{control}_control"), painted(f"{control}_lora")
    assert np.abs(whole - lora).max() <= 1
    (other,) = painted("depth_control" if control == "canny" else "canny_control")
    assert np.abs(whole - other).max() > 20


def test_redux_s_workflows_differ_in_prompt_and_strength_alone() -> None:
    variation, mix = (read_graph(API / f"redux_{name}.json") for name in ("variation", "style_mix"))
    changed = {
        (node["class_type"], name)
        for key, node in variation.items()
        for name, value in node["inputs"].items()
        if mix[key]["inputs"][name] != value
    }
    redux = "Flux1ReduxConditioning"
    strength = {(redux, "strength"), (redux, "strength_type")}
    assert changed == {("Flux1TextEncode", "prompt"), *strength, ("SaveImage", "filename_prefix")}
    texts = [node["inputs"]["prompt"] for node in variation.values() if node["class_type"] == "Flux1TextEncode"]
    assert texts == [""]


def test_the_picture_that_redux_is_shown_counts(server: Client, painted: Callable) -> None:
    (before,) = painted("redux_variation")
    graph = as_shipped(server, "redux_variation")
    (load,) = (node for node in graph.values() if node["class_type"] == "LoadImage")
    load["inputs"]["image"] = server.upload(picture(99), "another.png")
    (after,) = server.run(graph).images
    assert not np.array_equal(np.asarray(after.convert("RGB"), np.int16), before)  # a random model listens little
