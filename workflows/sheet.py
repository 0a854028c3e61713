"""A workflow as Python draws it: nodes, wires and groups, written in UI format for the graph editor and in API format.

Sockets, widgets, their order and defaults come from a server's `/object_info`, so only what differs from a node's own
defaults has to be said.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .graph import Graph

SLOT, WIDGET, MARGIN = 20, 24, 8  # heights in a node, in the graph editor's pixels
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
OPTIONAL = {"shape": 7}  # the graph editor draws a ring
BLUE, BROWN = "#3f789e", {"color": "#432", "bgcolor": "#653"}

Point = tuple[int, int]
Info = Mapping[str, Any]
"""What `/object_info` says of a node."""


@dataclass(frozen=True)
class File:
    """A model file on Hugging Face, and the folder of ComfyUI's models that it goes to."""

    name: str
    folder: str
    repository: str
    path: str = ""
    """The folder inside the repository, ending in a slash."""
    size: str = ""
    """For people; empty where it doesn't matter."""

    @property
    def link(self) -> dict[str, str]:
        """What lets the graph editor offer the download."""
        url = f"https://huggingface.co/{self.repository}/resolve/main/{self.path}{self.name}"
        return {"name": self.name, "url": url, "directory": self.folder}


@dataclass(frozen=True)
class Output:
    """A node's output, and the points that a wire from it is led over."""

    node: int
    slot: int
    via: tuple[Point, ...] = ()

    def over(self, *points: Point) -> "Output":
        return replace(self, via=(*self.via, *points))


@dataclass(frozen=True)
class Port:
    """One input of a node, a socket or a widget, with what the server says of it."""

    name: str
    type: str
    optional: bool
    options: Mapping[str, Any]
    label: str = ""
    """What is shown instead of the name."""

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGETS

    @property
    def companion(self) -> list[str]:
        """The value of the widget that the graph editor adds below this one."""
        seed = self.options.get("control_after_generate")
        return ["fixed"] if seed else ["image"] if self.options.get("image_upload") else []


@dataclass(frozen=True)
class Node:
    """A node on the sheet; `values` are its widgets', `wires` lead to its inputs."""

    id: int
    class_type: str
    title: str
    at: Point
    size: Point
    ports: list[Port]
    values: dict[str, Any]
    wires: dict[str, Output]
    info: Info


class Sheet:
    """An empty workflow of this name.

    `infos` is a server's `/object_info`, `files` are the models that nodes may name, `versions` those of the packs by
    their names in ComfyUI's registry.
    """

    def __init__(self, name: str, infos: Mapping[str, Info], files: Iterable[File], versions: Mapping[str, str]):
        self.name, self.infos, self.versions = name, infos, versions
        self.files = {file.name: file for file in files}
        self.nodes: list[Node] = []
        self.groups: list[tuple[str, Point, Point]] = []
        self.notes: list[tuple[str, Point, Point]] = []

    def add(self, class_type: str, title: str, at: Point, size: Point = (300, 0), /, **inputs: Any) -> list[Output]:
        """Adds a node, its body's top left corner at `at`, and returns its outputs.

        An input is a value or an `Output`; a widget that is not named keeps its default. A height too small for the
        widgets grows. Raises ValueError for an input that the node has not, and for one that it lacks.
        """
        info = self.infos[class_type]
        ports = list(ports_of(info, inputs))
        if unknown := inputs.keys() - {port.name for port in ports}:
            raise ValueError(f"{class_type} has no input {', '.join(sorted(unknown))}")
        wires = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        values = {port.name: value_of(port, inputs) for port in ports if port.is_widget}
        if lacking := {port.name for port in ports if not port.optional} - {*wires, *values}:
            raise ValueError(f"{class_type} lacks {', '.join(sorted(lacking))}")
        number = len(self.nodes) + 1
        size = size[0], max(size[1], least_height(ports, info))
        self.nodes.append(Node(number, class_type, title, at, size, ports, values, wires, info))
        return [Output(number, slot) for slot in range(len(info["output"]))]

    def group(self, title: str, top_left: Point, bottom_right: Point) -> None:
        self.groups.append((title, top_left, bottom_right))

    def note(self, text: str, top_left: Point, bottom_right: Point) -> None:
        self.notes.append((text, top_left, bottom_right))

    def to_api(self) -> Graph:
        return {
            str(node.id): {
                "class_type": node.class_type,
                "inputs": node.values | {name: [str(wire.node), wire.slot] for name, wire in node.wires.items()},
                "_meta": {"title": node.title},
            }
            for node in self.nodes
        }

    def to_ui(self) -> dict[str, Any]:
        nodes = [self.drawn(node) for node in self.nodes]
        notes = [
            {
                "id": number, "type": "MarkdownNote", "pos": list(start), "size": list(extent(start, end)), "flags": {},
                "order": number - 1, "mode": 0, "inputs": [], "outputs": [], "title": "Read me first",
                "properties": {}, "widgets_values": [text], **BROWN,
            }
            for number, (text, start, end) in enumerate(self.notes, len(nodes) + 1)
        ]  # fmt: skip
        links, reroutes, extensions = self.wired(nodes)
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.name)),
            "revision": 0,
            "last_node_id": len(nodes) + len(notes),
            "last_link_id": len(links),
            "nodes": nodes + notes,
            "links": links,
            "groups": [
                {"id": number, "title": title, "bounding": [*start, *extent(start, end)], "color": BLUE, "flags": {}}
                for number, (title, start, end) in enumerate(self.groups, 1)
            ],
            "config": {},
            "extra": {"reroutes": reroutes, "linkExtensions": extensions, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def drawn(self, node: Node) -> dict[str, Any]:
        """The node without its links."""
        pack = "flux1" if node.class_type.startswith("Flux1") else "comfy-core"
        properties = {"Node name for S&R": node.class_type, "cnr_id": pack, "ver": self.versions[pack]}
        if models := [self.files[value].link for value in node.values.values() if value in self.files]:
            properties["models"] = models
        inputs = [
            {"name": port.name, "type": port.type, "link": None}
            | (OPTIONAL if port.optional else {})
            | ({"label": port.label} if port.label else {})
            | ({"widget": {"name": port.name}} if port.is_widget else {})
            for port in node.ports
        ]
        outputs = [
            {"name": name, "type": kind, "links": []}
            for name, kind in zip(node.info["output_name"], node.info["output"], strict=True)
        ]
        widgets = [port for port in node.ports if port.is_widget]
        return {
            "id": node.id, "type": node.class_type, "pos": list(node.at), "size": list(node.size), "flags": {},
            "order": node.id - 1, "mode": 0, "inputs": inputs, "outputs": outputs, "title": node.title,
            "properties": properties,
            "widgets_values": [value for port in widgets for value in (node.values[port.name], *port.companion)],
        }  # fmt: skip

    def wired(self, drawn: list[dict[str, Any]]) -> tuple[list[list[Any]], list[dict], list[dict]]:
        """Connects the drawn nodes; returns the links, the points they are led over and which link ends at which.

        Wires from one output share the points that they begin with.
        """
        links: list[list[Any]] = []
        points: dict[tuple, dict[str, Any]] = {}
        extensions = []
        for node in self.nodes:
            for slot, port in enumerate(node.ports):
                if (wire := node.wires.get(port.name)) is None:
                    continue
                number, source = len(links) + 1, drawn[wire.node - 1]["outputs"][wire.slot]
                links.append([number, wire.node, wire.slot, node.id, slot, source["type"]])
                source["links"].append(number)
                drawn[node.id - 1]["inputs"][slot]["link"] = number
                parent: dict[str, int] = {}
                for length, at in enumerate(wire.via, 1):
                    fresh = {"id": len(points) + 1, **parent, "pos": list(at), "linkIds": []}
                    point = points.setdefault((wire.node, wire.slot, wire.via[:length]), fresh)
                    point["linkIds"].append(number)
                    parent = {"parentId": point["id"]}
                if parent:
                    extensions.append({"id": number, **parent})
        return links, list(points.values()), extensions


def ports_of(info: Info, given: Mapping[str, Any]) -> list[Port]:
    """A node's inputs in the graph editor's order: sockets, then widgets."""
    ports = [
        port
        for part in ("required", "optional")
        for name in info["input_order"].get(part, [])
        for port in ports_named(name, *info["input"][part][name], optional=part == "optional", given=given)
    ]
    return sorted(ports, key=lambda port: port.is_widget)


def ports_named(
    name: str, kind: Any, options: Mapping[str, Any] = {}, *, optional: bool, given: Mapping[str, Any]
) -> Iterator[Port]:
    """One input, or where a node takes as many as are connected, all of them and a free one."""
    if kind != "COMFY_AUTOGROW_V3":
        kind = options.get("widgetType", kind)  # of several types, the one with the widget
        yield Port(name, "COMBO" if isinstance(kind, list) else kind, optional, options)
        return
    template = options["template"]
    ((inner, *_),) = template["input"]["required"].values()
    for number in range(template["max"]):
        label = f"{template['prefix']}{number}"
        grown = f"{name}.{label}"
        yield Port(grown, inner, number >= template["min"], {}, label)
        if number >= template["min"] - 1 and grown not in given:
            return


def value_of(port: Port, given: Mapping[str, Any]) -> Any:
    """A widget's value; raises ValueError where there is none."""
    value = given.get(port.name, port.options.get("default"))
    if isinstance(value, Output) or value is None:
        raise ValueError(f"{port.name} needs a value")
    return value


def least_height(ports: list[Port], info: Info) -> int:
    """What the graph editor needs to draw the node."""
    sockets = sum(not port.is_widget for port in ports)
    widgets = sum(1 + len(port.companion) for port in ports if port.is_widget)
    return max(sockets, len(info["output"])) * SLOT + 6 + (widgets * WIDGET + MARGIN if widgets else 0)


def extent(start: Point, end: Point) -> Point:
    return end[0] - start[0], end[1] - start[1]
