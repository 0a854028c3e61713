"""A workflow in API format, `{id: {class_type, inputs, _meta}}`: building, reading and checking it, finding its nodes."""

import itertools
import json
from pathlib import Path
from typing import Any

from flux_core.errors import Flux1Error

Node = dict[str, Any]
Graph = dict[str, Node]
Link = list[Any]
"""[node id, number of its output]"""

API_FORMAT = "a workflow in API format, {node id: {class_type, inputs}}"


class GraphBuilder:
    """Collects nodes; each call adds one and returns its outputs as links."""

    def __init__(self) -> None:
        self.graph: Graph = {}
        self.ids = map(str, itertools.count(1))

    def __call__(self, class_type: str, **inputs: Any) -> list[Link]:
        key = next(self.ids)
        self.graph[key] = {"class_type": class_type, "inputs": inputs}
        return [[key, slot] for slot in range(8)]


def read_graph(path: Path) -> Graph:
    """The workflow in the file; raises Flux1Error when it is not one that a server can queue."""
    try:
        return check_graph(json.loads(path.read_text(encoding="utf-8")), path.name)
    except ValueError as error:
        if isinstance(error, Flux1Error):
            raise
        raise Flux1Error(
            "The workflow can't be read", file=path.name, expected=API_FORMAT, found=str(error),
            fix="export it again from the graph editor",
        ) from error  # fmt: skip


def check_graph(graph: object, name: str | None = None) -> Graph:
    """`graph` itself when it has the form that a server can queue; raises Flux1Error otherwise."""

    def refuse(found: str, fix: str = "export the workflow again with Workflow > Export (API)") -> Flux1Error:
        return Flux1Error("This workflow can't be queued", file=name, expected=API_FORMAT, found=found, fix=fix)

    if not isinstance(graph, dict) or not graph:
        raise refuse(f"an empty {type(graph).__name__}" if not graph else f"a {type(graph).__name__}")
    if isinstance(graph.get("nodes"), list):
        raise refuse(
            "a workflow in UI format",
            "open it in the graph editor and use Workflow > Export (API); the bundled ones lie in workflows/api",
        )
    for key, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise refuse(f"entry {key!r} without a class_type")
        if not isinstance(node.get("inputs"), dict):
            raise refuse(f"node {key!r} ({node['class_type']}) without inputs")
    try:
        json.dumps(graph, allow_nan=False)
    except ValueError as error:
        raise refuse(f"a value that JSON has no word for: {error}", "replace NaN and infinity by numbers") from error
    return graph


def title(node: Node) -> str:
    return node.get("_meta", {}).get("title") or node["class_type"]


def named(graph: Graph, key: str) -> str:
    """The node as errors speak of it."""
    return f"node {key} {title(graph[key])!r} ({graph[key]['class_type']})"


def find_nodes(graph: Graph, name: str) -> list[Node]:
    """The nodes with this title, or else of this class, in the file's order; raises Flux1Error when there is none."""
    nodes = list(graph.values())
    found = [node for node in nodes if title(node) == name] or [node for node in nodes if node["class_type"] == name]
    if not found:
        raise Flux1Error(
            f"The workflow has no node {name!r}", expected="the title or class of a node in it",
            found=", ".join(sorted({title(node) for node in nodes})), fix="use one of these",
        )  # fmt: skip
    return found
