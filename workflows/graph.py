"""A workflow in API format, `{id: {class_type, inputs, _meta}}`: building, reading and checking it, finding its nodes."""

import itertools
import json
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from flux_core.errors import Flux1Error

Node = dict[str, Any]
Graph = dict[str, Node]
Link = list[Any]
"""[node id, number of its output]"""

API_FORMAT = "a workflow in API format, {node id: {class_type, inputs}}"
LONGEST = 200
"""Bytes of one part of a file name's path; file systems take 255, and a counter and an ending come after it."""


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
    return check_graph(read_json(path), path.name)


def read_json(path: Path) -> object:
    """What the file says; raises Flux1Error when it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise Flux1Error(
            "The workflow can't be read", file=path.name, expected=API_FORMAT, found=str(error),
            fix="export it again from the graph editor",
        ) from error  # fmt: skip


def is_ui(graph: object) -> bool:
    """Whether this is the graph editor's own format."""
    return isinstance(graph, dict) and isinstance(graph.get("nodes"), list)


def check_graph(graph: object, name: str | None = None) -> Graph:
    """`graph` itself when it has the form that a server can queue; raises Flux1Error otherwise."""

    def refuse(found: str, fix: str = "export the workflow again with Workflow > Export (API)") -> Flux1Error:
        return Flux1Error("This workflow can't be queued", file=name, expected=API_FORMAT, found=found, fix=fix)

    if not isinstance(graph, dict) or not graph:
        raise refuse(f"an empty {type(graph).__name__}" if not graph else f"a {type(graph).__name__}")
    if is_ui(graph):
        raise refuse(
            "a workflow in UI format",
            "open it in the graph editor and use Workflow > Export (API); the bundled ones lie in workflows/api",
        )
    for key, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise refuse(f"entry {key!r} without a class_type")
        if not isinstance(node.get("inputs"), dict):
            raise refuse(f"node {key!r} ({node['class_type']}) without inputs")
    if not is_json(graph):
        fix = "replace NaN and infinity by numbers and broken characters by whole ones"
        raise refuse("; ".join(value_faults(graph)) or "a broken character", fix)
    if faults := [*link_faults(graph), *prefix_faults(graph)]:
        raise refuse("; ".join(faults), "correct these inputs")
    try:
        TopologicalSorter({key: {link[0] for _, link in links(node)} for key, node in graph.items()}).prepare()
    except CycleError as error:
        circle = " -> ".join(named(graph, key) for key in error.args[1])
        raise refuse(f"nodes that wait for each other: {circle}", "cut one of these links") from error
    return graph


def links(node: Node) -> Iterator[tuple[str, Link]]:
    """The inputs that come from other nodes; to a server every list is a link."""
    return ((name, value) for name, value in node["inputs"].items() if isinstance(value, list))


def is_json(value: object) -> bool:
    """Whether it can be sent: JSON has no word for NaN, infinity and half a character."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def value_faults(graph: Graph) -> Iterator[str]:
    for key, node in graph.items():
        for name, value in node["inputs"].items():
            if not is_json(value):
                yield f"input {name!r} of {named(graph, key)} is {value!a}"


def link_faults(graph: Graph) -> Iterator[str]:
    """Links that lead nowhere."""
    for key, node in graph.items():
        for name, link in links(node):
            match link:
                case [str(source), int(slot)] if source in graph and slot >= 0:
                    continue
                case [str(source), int(slot)] if slot >= 0:
                    fault = f"comes from node {source}, which is not there"
                case _:
                    fault = f"is {json.dumps(link)}, not [node id, number of its output]"
            yield f"input {name!r} of {named(graph, key)} {fault}"


def prefix_faults(graph: Graph) -> Iterator[str]:
    """File names that would lead out of the output folder, or that some system can't hold or show."""
    for key, node in graph.items():
        prefix = node["inputs"].get("filename_prefix", "file")
        if not isinstance(prefix, list) and (fault := prefix_fault(prefix)):
            yield f"filename_prefix of {named(graph, key)} {fault}"


def prefix_fault(prefix: object) -> str | None:
    if not isinstance(prefix, str) or not prefix.strip():
        return "is empty" if isinstance(prefix, str) else f"is {json.dumps(prefix)}, not a text"
    parts = prefix.split("/")
    if ".." in parts or prefix.startswith(("/", "~")) or re.match("[A-Za-z]:", prefix):
        return f"leads out of the output folder: {prefix!r}"
    if unfit := re.search(r"[\x00-\x1f\x7f\\]", prefix):
        return f"has the character {unfit[0]!r} in it"
    if max(len(part.encode()) for part in parts) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if not parts[-1].strip(" ."):
        return f"has no name at its end: {prefix!r}"
    return None


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
