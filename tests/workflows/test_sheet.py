"""Workflows drawn in Python: what a node lacks or has not is refused, inputs grow as they are connected."""

from typing import Any

import pytest

from workflows.client import Client
from workflows.sheet import INSIDE, OUTSIDE, Output, Sheet

PICTURE = Output(1, 0)


@pytest.fixture
def sheet(server: Client) -> Sheet:
    return Sheet("test", server.get("/object_info"), [], {"flux1": "1", "comfy-core": "1"})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"images": PICTURE, "picture": PICTURE}, "SaveImage has no input picture"),
        ({}, "SaveImage lacks images"),
        ({"images": PICTURE, "filename_prefix": None}, "filename_prefix needs a value"),
    ],
)
def test_a_node_gets_what_it_asks_for_and_nothing_else(sheet: Sheet, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sheet.add("SaveImage", "Save", (0, 0), **inputs)


@pytest.mark.parametrize("connected", [1, 2, 8])
def test_there_is_one_free_input_more_than_are_connected_as_long_as_the_node_has_one(
    sheet: Sheet, connected: int
) -> None:
    images = {f"images.image{number}": PICTURE for number in range(connected)}
    sheet.add("Flux1KontextReference", "", (0, 0), conditioning=PICTURE, vae=PICTURE, **images)
    names = [port.name for port in sheet.nodes[0].ports if port.name.startswith("images.")]
    assert names == [f"images.image{number}" for number in range(min(connected + 1, 8))]


def test_wires_from_one_output_share_the_points_they_begin_with(sheet: Sheet) -> None:
    (image, _) = sheet.add("LoadImage", "", (0, 0), image="landscape.png")
    for end in ((9, 9), (9, 9), (9, 5)):
        sheet.add("PreviewImage", "", (0, 0), images=image.over((1, 1), end))
    extra = sheet.to_ui()["extra"]
    points = {tuple(point["pos"]): point for point in extra["reroutes"]}
    assert len(extra["reroutes"]) == len(points) == 3
    assert points[1, 1]["linkIds"] == [1, 2, 3] and "parentId" not in points[1, 1]
    for end, wires in (((9, 9), [1, 2]), ((9, 5), [3])):
        assert points[end]["linkIds"] == wires and points[end]["parentId"] == points[1, 1]["id"]
        assert {each["parentId"] for each in extra["linkExtensions"] if each["id"] in wires} == {points[end]["id"]}


def test_a_subgraph_is_one_node_in_the_editor_and_its_nodes_for_the_server(sheet: Sheet) -> None:
    """Twice on the sheet, with other values."""
    inner = sheet.subgraph("Blurred")
    image, radius = inner.input("image", "IMAGE"), inner.input("radius", "INT", default=2)
    (blurred,) = inner.add("ImageBlur", "Blur", (0, 0), image=image, blur_radius=radius, sigma=1.0)
    inner.output("IMAGE", blurred)
    (picture, _) = sheet.add("LoadImage", "Picture", (0, 0), image="landscape.png")
    (once,) = sheet.add(inner, "Once", (0, 0), image=picture)
    (twice,) = sheet.add(inner, "Twice", (0, 0), image=once, radius=5)
    sheet.add("PreviewImage", "Seen", (0, 0), images=twice)

    graph = sheet.to_api()
    blurs = {key: node for key, node in graph.items() if node["class_type"] == "ImageBlur"}
    first, second = blurs
    assert [key.split(":")[1] for key in blurs] == ["1", "1"] and first != second
    assert [node["inputs"]["blur_radius"] for node in blurs.values()] == [2, 5]
    assert blurs[second]["inputs"]["image"] == [first, 0]
    assert blurs[second]["_meta"]["title"] == "Twice: Blur"
    assert [node["inputs"]["images"] for node in graph.values() if "images" in node["inputs"]] == [[second, 0]]

    (definition,) = sheet.to_ui()["definitions"]["subgraphs"]
    assert [node["type"] for node in sheet.to_ui()["nodes"]].count(definition["id"]) == 2
    ends = {(link["origin_id"], link["target_id"]) for link in definition["links"]}
    assert ends == {(INSIDE, 1), (1, OUTSIDE)}
