"""The inputs of a workflow that can be set: those with a value of their own, found by name or by their node's title."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flux_core.errors import Flux1Error

from .graph import Graph, title

SEEDS = ("seed", "noise_seed")
KINDS = {  # what a person may give for a value of this type: in words, and as types
    bool: ("true or false", (bool,)),
    int: ("a number", (int, float)),  # files have 1 where the node takes 1.0, too
    float: ("a number", (int, float)),
}


@dataclass(frozen=True)
class Setting:
    """The value of one input; `names` are those that a person may call it by, the shortest first."""

    node: str
    input: str
    value: str | bool | int | float
    names: tuple[str, ...]

    def of(self, text: str) -> Any:
        """The text as a value of this input's kind; raises Flux1Error when it is none."""
        if isinstance(self.value, str):
            return text
        what, types = KINDS[type(self.value)]
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if type(value) not in types:
            raise Flux1Error(
                f"{self.names[0]} can't be set to this", expected=what, found=text, fix=f"for example {self.value}"
            )
        return value


def settings(graph: Graph) -> list[Setting]:
    """In the file's order."""
    return [
        Setting(key, name, value, (name, f"{title(node)}.{name}", f"{node['class_type']}.{name}", f"{key}.{name}"))
        for key, node in graph.items()
        for name, value in node["inputs"].items()
        if isinstance(value, str) or type(value) in KINDS
    ]


def shortest(setting: Setting, among: Iterable[Setting]) -> str:
    """The shortest name that means this one only."""
    count = Counter(name for other in among for name in set(other.names))
    return next((name for name in setting.names if count[name] == 1), setting.names[-1])


def find(graph: Graph, name: str) -> Setting:
    """The input of this name; raises Flux1Error, with all there are, when none or several have it."""
    every = settings(graph)
    wanted = name.strip().casefold()
    found = [setting for setting in every if wanted in (each.casefold() for each in setting.names)]
    if len(found) == 1:
        return found[0]
    raise Flux1Error(
        f"{'No input' if not found else 'More than one input'} of the workflow is called {name!r}",
        expected="the name of one input",
        found=", ".join(shortest(setting, every) for setting in found or every),
        fix="use one of these names",
    )  # fmt: skip


def with_values(graph: Graph, values: Mapping[tuple[str, str], Any]) -> Graph:
    """The workflow with other values, by node id and input name."""
    return {
        key: node | {"inputs": {name: values.get((key, name), value) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
    }


def with_texts(graph: Graph, texts: Iterable[str]) -> Graph:
    """The workflow with each `NAME=VALUE` set; raises Flux1Error for what can't be."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise Flux1Error("This sets nothing", expected="NAME=VALUE", found=text, fix="for example seed=5")
        setting = find(graph, name)
        values[setting.node, setting.input] = setting.of(value)
    return with_values(graph, values)


def with_seeds(graph: Graph, more: int) -> Graph:
    """The workflow with all its seeds `more` higher, at most 64 bits long; Flux1Error when it has none."""
    seeds = [each for each in settings(graph) if each.input in SEEDS and isinstance(each.value, int)]
    if not seeds:
        raise Flux1Error(
            "The workflow can't be repeated", expected="an input called seed", found="none with a value of its own",
            fix="leave --repeat out: each run would give the same",
        )  # fmt: skip
    return with_values(graph, {(each.node, each.input): (each.value + more) % 2**64 for each in seeds})
