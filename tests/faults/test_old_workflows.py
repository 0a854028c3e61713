"""Workflows as they were exported from version 0.1.0 run for ever: the files in golden/ are never to be changed."""

from pathlib import Path

import pytest
from PIL import Image

from tests.faults.running import Place, finite
from workflows.graph import read_graph

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
SMALL = {"steps": 2, "preset": "custom", "width": 64, "height": 64, "sizing": "own size", "left": 16, "right": 16}


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: f"W12 {file.stem}")
def test_an_old_workflow_still_paints(place: Place, file: Path):
    """Small and in two steps, otherwise as it is; as it is the server takes it, too."""
    graph = read_graph(file)
    for node in graph.values():
        if node["class_type"] in ("LoadImage", "LoadImageMask"):
            picture = Image.effect_noise((64, 64), 80).convert("RGBA")
            picture.paste((0, 0, 0, 0), (16, 16, 48, 48))
            place.client.upload(picture, node["inputs"]["image"])
    prompt_id = place.client.queue(graph)
    place.client.post("/queue", {"delete": [prompt_id]})
    place.client.post("/interrupt", {"prompt_id": prompt_id})
    for node in graph.values():
        node["inputs"] |= {name: SMALL[name] for name in node["inputs"].keys() & SMALL}
    images = place.client.run(graph).images
    assert images and all(map(finite, images))
