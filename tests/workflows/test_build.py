"""The bundled workflows as drawn: committed as they are drawn today, run as the models' authors run them."""

from pathlib import Path
from typing import Any

import pytest

from flux_core.checkpoint import identify, read_header
from flux_core.variants import VARIANTS, Variant
from workflows.build import files
from workflows.client import Client
from workflows.graph import Graph, read_graph

API = sorted((Path(__file__).parents[2] / "workflows" / "api").glob("*.json"))


def test_the_committed_files_are_what_is_drawn(server: Client) -> None:
    """Otherwise: python -m workflows.build."""
    for path, text in files(server.get("/object_info")).items():
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.parametrize("file", API, ids=lambda file: file.stem)
def test_steps_and_guidance_are_the_model_s_own(file: Path, models: Path) -> None:
    graph = read_graph(file)
    nodes = [node for node in graph.values() if node["class_type"] in ("Flux1Sampler", "Flux1TextEncode")]
    assert {node["class_type"] for node in nodes} == {"Flux1Sampler", "Flux1TextEncode"}
    for node in nodes:
        variant, inputs = variant_of(graph, node["inputs"]["model"], models), node["inputs"]
        assert inputs.get("steps", variant.steps) == variant.steps
        assert inputs.get("guidance", variant.guidance) == variant.guidance


def variant_of(graph: Graph, link: list[Any], models: Path) -> Variant:
    """What the loaded file's shapes and name say."""
    name = graph[link[0]]["inputs"]["model_name"]
    return VARIANTS[identify(read_header(models / "diffusion_models" / name)).variant]
