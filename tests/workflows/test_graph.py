"""API graphs: what can't be queued is refused in words, nodes are found by title before class."""

import json
from pathlib import Path
from typing import Any

import pytest

from flux_core.errors import Flux1Error
from workflows.graph import check_graph, find_nodes, read_graph


def node(class_type: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


@pytest.mark.parametrize(
    "graph, text",
    [
        ({"nodes": [], "links": [], "version": 0.4}, "UI format"),
        ({}, "empty dict"),
        ([], "empty list"),
        (None, "NoneType"),
        ({"1": {"inputs": {}}}, "'1' without a class_type"),
        ({"1": {"class_type": "LoadImage"}}, "without inputs"),
        ({"1": node("ImageScaleBy", scale_by=float("nan"))}, "NaN"),
    ],
)
def test_what_a_server_cannot_queue_is_refused_in_words(graph: object, text: str) -> None:
    with pytest.raises(Flux1Error, match=text) as error:
        check_graph(graph, "mine.json")
    assert "mine.json" in str(error.value)


def test_broken_json_is_refused_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text('{"1": ')
    with pytest.raises(Flux1Error, match=r"broken\.json.*line 1"):
        read_graph(file)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    graph = {"1": node("LoadImage", "Bild für dich", image="a.png")}
    (tmp_path / "graph.json").write_text(json.dumps(graph, ensure_ascii=False), encoding="utf-8")
    assert read_graph(tmp_path / "graph.json") == graph


def test_a_title_is_found_before_a_class_and_a_miss_lists_the_choice() -> None:
    graph = {"7": node("LoadImage", "Photograph"), "3": node("LoadImage", "Mask"), "5": node("SaveImage", "LoadImage")}
    assert find_nodes(graph, "Mask") == [graph["3"]]
    assert find_nodes(graph, "LoadImage") == [graph["5"]]
    assert find_nodes(graph, "SaveImage") == [graph["5"]]
    with pytest.raises(Flux1Error, match="LoadImage, Mask, Photograph"):
        find_nodes(graph, "KSampler")
