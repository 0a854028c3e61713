"""What a running server tells the graph editor of our nodes: every input is explained, and can be set as it should be."""

from collections.abc import Iterator
from math import isclose
from typing import Any

import pytest

from workflows.client import Client

Inputs = list[tuple[str, str | list, dict[str, Any]]]


@pytest.fixture(scope="module")
def nodes(server: Client) -> dict[str, Any]:
    infos = server.get("/object_info")
    return {name: info for name, info in infos.items() if info["python_module"] == "custom_nodes.flux1"}


def inputs_of(groups: dict[str, Any]) -> Iterator[tuple[str, str | list, dict[str, Any]]]:
    """Name, type and options of every input, of those inside growing and branching ones too."""
    for part in ("required", "optional"):
        for name, (kind, *options) in groups.get(part, {}).items():
            told = options[0] if options else {}
            yield name, kind, told
            if "template" in told:
                yield from inputs_of(told["template"]["input"])
            for choice in told["options"] if kind == "COMFY_DYNAMICCOMBO_V3" else ():
                yield from inputs_of(choice["inputs"])


@pytest.fixture(scope="module")
def inputs(nodes: dict[str, Any]) -> Inputs:
    return [
        (f"{node}.{name}", kind, told) for node, info in nodes.items() for name, kind, told in inputs_of(info["input"])
    ]


def test_every_node_is_described_and_filed(nodes: dict[str, Any]) -> None:
    for name, info in nodes.items():
        assert info["description"].endswith("."), name
        assert info["display_name"].startswith("FLUX.1 ") and info["category"].startswith("FLUX.1/"), name
        assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"]), name


def test_every_input_is_explained(inputs: Inputs) -> None:
    assert not [name for name, _, told in inputs if not told.get("tooltip", "").endswith(".")]


def test_every_number_has_a_range_that_its_default_and_steps_fit(inputs: Inputs) -> None:
    numbers = [(name, kind, told) for name, kind, told in inputs if kind in ("INT", "FLOAT")]
    assert numbers
    for name, kind, told in numbers:
        low, high, default, step = told["min"], told["max"], told["default"], told.get("step", 1)
        assert low <= default <= high and 0 < step < high - low, name
        steps = (default - low) / step
        assert isclose(steps, round(steps), abs_tol=1e-6), f"{name}: {default} is no step from {low}"
        assert kind == "INT" or "step" in told, f"{name}: a number with a fraction that moves by 1"


def test_every_choice_begins_with_one_that_is_there(inputs: Inputs) -> None:
    choices = [(name, told) for name, kind, told in inputs if kind == "COMBO"]
    assert choices
    for name, told in choices:
        assert len(set(told["options"])) == len(told["options"]), name
        assert told.get("default") is None or told["default"] in told["options"], name


def test_text_encoders_are_told_apart_before_anything_is_chosen(nodes: dict[str, Any]) -> None:
    loader = nodes["Flux1LoadTextEncoders"]["input"]["required"]
    assert loader["t5_name"][1]["default"] == "t5xxl_fp16.safetensors"
    assert loader["clip_name"][1]["default"] == "clip_l.safetensors"
