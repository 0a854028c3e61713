"""The bundled workflows as drawn: committed as they are drawn today, run as the models' authors run them."""

from pathlib import Path
from typing import Any

import pytest

from flux_core.variants import VARIANTS
from workflows.build import files
from workflows.client import Client
from workflows.graph import Graph, read_graph

SAMPLERS = ("Flux1Sampler", "Flux1TiledSampler")
API = sorted((Path(__file__).parents[2] / "workflows" / "api").glob("*.json"))


def test_the_committed_files_are_what_is_drawn(server: Client) -> None:
    """Otherwise: python -m workflows.build."""
    for path, text in files(server.get("/object_info")).items():
        assert path.read_text(encoding="utf-8") == text, path.name


VARIANT_OF = {  # by the loaded file
    "flux1-dev.safetensors": "dev",
    "flux1-schnell.safetensors": "schnell",
    "flux1-fill-dev.safetensors": "fill",
    "flux1-canny-dev.safetensors": "canny",
    "flux1-depth-dev.safetensors": "depth",
    "flux1-dev-kontext_fp8_scaled.safetensors": "kontext",
    "flux1-canny-dev-lora.safetensors": "canny",
    "flux1-depth-dev-lora.safetensors": "depth",
}


@pytest.mark.parametrize("file", API, ids=lambda file: file.stem)
def test_settings_are_those_of_the_model_s_authors(file: Path) -> None:
    graph = read_graph(file)
    prompts = [node["inputs"] for node in graph.values() if node["class_type"] == "Flux1TextEncode"]
    samplers = [node["inputs"] for node in graph.values() if node["class_type"] in SAMPLERS]
    assert prompts and samplers
    for inputs in prompts:
        variant = VARIANTS[VARIANT_OF[loaded(graph, inputs["model"])]]
        assert inputs["guidance"] == variant.guidance and inputs["guidance_by_model"]
        assert inputs["t5_length"] in ("by model", str(variant.text_tokens))
    for inputs in samplers:
        assert inputs["steps"] == VARIANTS[VARIANT_OF[loaded(graph, inputs["model"])]].steps


def test_control_loras_have_the_strength_of_their_authors() -> None:
    loras = [
        node["inputs"] for file in API for node in read_graph(file).values() if node["class_type"] == "Flux1LoadLora"
    ]
    assert len(loras) == 2
    assert all(inputs["strength"] == "custom" and inputs["strength.value"] == 0.85 for inputs in loras)


def loaded(graph: Graph, link: list[Any]) -> str:
    """The file that decides what a MODEL is: a control LoRA's, else the model's."""
    inputs = graph[link[0]]["inputs"]
    return inputs.get("lora_name") or inputs["model_name"]
