"""The client: pictures come back as they were, errors carry the server's own words."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_core.errors import Flux1Error
from tests.workflows.batches import small, until
from workflows.client import Client, RunError

Graph = dict[str, dict[str, Any]]


def invert(image: str) -> Graph:
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": image}},
        "invert": {"class_type": "ImageInvert", "inputs": {"image": ["load", 0]}, "_meta": {"title": "Turn over"}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["invert", 0], "filename_prefix": "inverted"}},
    }


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))


def test_a_picture_goes_through_the_server_and_back(server: Client, picture: Image.Image) -> None:
    name = server.upload(picture, "with blank & umlaut ü.png")
    result = server.run(invert(name))
    inverted = 255 - np.asarray(picture, dtype=int)
    assert np.abs(np.asarray(result.images[0], dtype=int) - inverted).max() <= 1  # SaveImage truncates
    assert result.outputs["save"]["images"][0]["filename"].startswith("inverted")


def test_a_second_run_says_that_it_came_from_the_cache(server: Client, picture: Image.Image) -> None:
    graph = invert(server.upload(picture, "again.png"))
    first, second = server.run(graph), server.run(graph)
    assert "invert" not in first.cached and "invert" in second.cached
    assert first.files == second.files


@pytest.mark.parametrize(
    "change, text",
    [
        ({"invert": {"class_type": "NoSuchNode", "inputs": {}}}, "NoSuchNode"),
        ({"invert": {"class_type": "ImageInvert", "inputs": {}}}, r"invert \(ImageInvert\).*Required input.*image"),
        ({"load": {"class_type": "LoadImage", "inputs": {"image": "none.png"}}}, r"load \(LoadImage\).*none\.png"),
        ({"more": {"class_type": "SaveImage", "inputs": {}}}, r"more \(SaveImage\).*Required input"),
    ],
)
def test_a_refused_workflow_names_the_node_and_its_errors(
    server: Client, picture: Image.Image, change: Graph, text: str
) -> None:
    with pytest.raises(RunError, match=text):
        server.run(invert(server.upload(picture, "refused.png")) | change)


def test_what_is_fine_of_a_workflow_that_is_refused_in_part_does_not_run(server: Client) -> None:
    blocker = server.queue(small(steps=4000, seed=9200)[0].graph)
    until(lambda: blocker in [entry[1] for entry in server.get("/queue")["queue_running"]])
    with pytest.raises(RunError) as error:
        server.run(small(seed=9201)[0].graph | {"more": {"class_type": "SaveImage", "inputs": {}}})
    waiting = [entry[1] for entry in server.get("/queue")["queue_pending"]]
    server.post("/interrupt", {"prompt_id": blocker})
    assert error.value.node_errors.keys() == {"more"} and error.value.answer["prompt_id"] not in waiting


def test_an_interrupted_workflow_is_said_so(server: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(server.run, small(steps=4000, seed=9202)[0].graph)
        until(lambda: server.post("/interrupt") and run.done())
    with pytest.raises(RunError, match="interrupted"):
        run.result()


def test_a_failing_node_is_named_with_what_it_said(server: Client, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    graph = invert(server.upload(tmp_path / "broken.png", "broken.png"))
    with pytest.raises(RunError, match=r"(?s)Node load 'LoadImage' \(LoadImage\) failed: .*cannot identify") as error:
        server.run(graph)
    assert error.value.node_type == "LoadImage"


def test_a_graph_in_ui_format_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(Flux1Error, match="UI format"):
        Client("http://127.0.0.1:1").run({"nodes": [], "links": []})


def test_a_server_that_is_not_there_is_said_so(picture: Image.Image) -> None:
    with pytest.raises(Flux1Error, match=r"does not answer.*127\.0\.0\.1:1"):
        Client("http://127.0.0.1:1").upload(picture, "a.png")
