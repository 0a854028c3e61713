"""A workflow as Python draws it: nodes, wires and groups, written in UI format for the graph editor and in API format.

Sockets, widgets, their order and defaults come from a server's `/object_info`, so only what differs from a node's own
defaults has to be said. A part of a workflow that is to be one node, for the user to open, is a `Subgraph`.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .graph import Graph, Link

SLOT, WIDGET, MARGIN = 20, 24, 8  # heights in a node, in the graph editor's pixels
CHOICE = "COMFY_DYNAMICCOMBO_V3"  # a combo whose options bring inputs of their own
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", CHOICE}
OPTIONAL = {"shape": 7}  # the graph editor draws a ring
INSIDE, OUTSIDE = -10, -20  # what a subgraph's own inputs and outputs have for a node's id
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

    @property
    def bare(self) -> "Output":
        return replace(self, via=())


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
    """A node on the sheet; `values` are its widgets', `wires` lead to its inputs, `outputs` have a name and a type."""

    id: int
    class_type: str
    title: str
    at: Point
    size: Point
    ports: list[Port]
    values: dict[str, Any]
    wires: dict[str, Output]
    outputs: list[tuple[str, str]]
    subgraph: "Subgraph | None" = None


@dataclass(frozen=True)
class Wire:
    """A drawn wire, from one node's output to another one's input; `parent` is the last point that it is led over."""

    id: int
    source: Output
    target: int
    slot: int
    type: str
    parent: dict[str, int]


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
        self.notes: list[tuple[int, str, Point, Point]] = []
        self.subgraphs: list[Subgraph] = []
        self.last: Counter[str] = Counter()
        """The last ids given to nodes, links and points: they are unique, subgraphs included."""

    def new_id(self, kind: str) -> int:
        self.last[kind] += 1
        return self.last[kind]

    def subgraph(self, name: str) -> "Subgraph":
        """An empty subgraph, for `add` to put on this sheet or into another subgraph of it."""
        self.subgraphs.append(Subgraph(name, self))
        return self.subgraphs[-1]

    def add(
        self, kind: "str | Subgraph", title: str, at: Point, size: Point = (300, 0), /, **inputs: Any
    ) -> list[Output]:
        """Adds a node of this class, or a subgraph, its body's top left corner at `at`, and returns its outputs.

        An input is a value or an `Output`; a widget that is not named keeps its default. A height too small for the
        widgets grows. Raises ValueError for an input that the node has not, and for one that it lacks.
        """
        if isinstance(kind, Subgraph):
            name, subgraph, class_type, ports, outputs = kind.name, kind, kind.id, kind.ports, kind.outputs_shown
        else:
            name, subgraph, class_type, info = kind, None, kind, self.infos[kind]
            ports = list(ports_of(info, inputs))
            outputs = list(zip(info["output_name"], info["output"], strict=True))
        if unknown := inputs.keys() - {port.name for port in ports}:
            raise ValueError(f"{name} has no input {', '.join(sorted(unknown))}")
        wires = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        values = {port.name: value_of(port, inputs) for port in ports if port.is_widget}
        if lacking := {port.name for port in ports if not port.optional} - {*wires, *values}:
            raise ValueError(f"{name} lacks {', '.join(sorted(lacking))}")
        size = size[0], max(size[1], least_height(ports, outputs))
        node = Node(self.new_id("node"), class_type, title, at, size, ports, values, wires, outputs, subgraph)
        self.nodes.append(node)
        return [Output(node.id, slot) for slot in range(len(outputs))]

    def group(self, title: str, top_left: Point, bottom_right: Point) -> None:
        self.groups.append((title, top_left, bottom_right))

    def note(self, text: str, top_left: Point, bottom_right: Point) -> None:
        self.notes.append((self.new_id("node"), text, top_left, bottom_right))

    def type_of(self, wire: Output) -> str:
        return next(node.outputs[wire.slot][1] for node in self.nodes if node.id == wire.node)

    def to_api(self) -> Graph:
        return self.flattened()[0]

    def flattened(
        self, prefix: str = "", titled: str = "", given: Sequence[Any] = ()
    ) -> tuple[Graph, dict[Output, Link]]:
        """All nodes, those in subgraphs too, their ids behind `prefix` and their titles behind `titled`; and what comes
        from each output. `given` is what a subgraph's own inputs get.
        """
        graph: Graph = {}
        sources: dict[Output, Any] = {Output(INSIDE, slot): value for slot, value in enumerate(given)}
        for node in self.nodes:
            wired = {name: sources[wire.bare] for name, wire in node.wires.items()}
            inputs = node.values | {name: source for name, source in wired.items() if source is not None}
            key = f"{prefix}{node.id}"
            if node.subgraph is None:
                title = {"title": titled + node.title}
                graph[key] = {"class_type": node.class_type, "inputs": inputs, "_meta": title}
                found = {Output(node.id, slot): [key, slot] for slot in range(len(node.outputs))}
            else:
                inner, inside = node.subgraph.flattened(
                    f"{key}:", f"{titled}{node.title}: ", [inputs.get(port.name) for port in node.subgraph.inputs]
                )
                graph |= inner
                found = {
                    Output(node.id, slot): inside[wire.bare] for slot, (_, wire) in enumerate(node.subgraph.outputs)
                }
            sources |= found
        return graph, sources

    def to_ui(self) -> dict[str, Any]:
        self.last["link"] = self.last["point"] = 0
        nodes, wires, reroutes = self.all_drawn()
        notes = [
            {
                "id": number, "type": "MarkdownNote", "pos": list(start), "size": list(extent(start, end)), "flags": {},
                "order": order, "mode": 0, "inputs": [], "outputs": [], "title": "Read me first",
                "properties": {}, "widgets_values": [text], **BROWN,
            }
            for order, (number, text, start, end) in enumerate(self.notes, len(nodes))
        ]  # fmt: skip
        definitions = [subgraph.to_definition() for subgraph in self.subgraphs]
        extensions = [{"id": wire.id, **wire.parent} for wire in wires if wire.parent]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.name)),
            "revision": 0,
            "last_node_id": self.last["node"],
            "last_link_id": self.last["link"],
            "nodes": nodes + notes,
            "links": [
                [wire.id, wire.source.node, wire.source.slot, wire.target, wire.slot, wire.type] for wire in wires
            ],
            "groups": self.drawn_groups(),
            **({"definitions": {"subgraphs": definitions}} if definitions else {}),
            "config": {},
            "extra": {"reroutes": reroutes, "linkExtensions": extensions, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def drawn_groups(self) -> list[dict[str, Any]]:
        return [
            {"id": number, "title": title, "bounding": [*start, *extent(start, end)], "color": BLUE, "flags": {}}
            for number, (title, start, end) in enumerate(self.groups, 1)
        ]

    def drawn(self, node: Node, order: int) -> dict[str, Any]:
        """The node without its links."""
        pack = "flux1" if node.subgraph or node.class_type.startswith("Flux1") else "comfy-core"
        properties = {} if node.subgraph else {"Node name for S&R": node.class_type}
        properties |= {"cnr_id": pack, "ver": self.versions[pack]}
        if models := [self.files[value].link for value in node.values.values() if value in self.files]:
            properties["models"] = models
        inputs = [
            {"name": port.name, "type": port.type, "link": None}
            | (OPTIONAL if port.optional else {})
            | ({"label": port.label} if port.label else {})
            | ({"widget": {"name": port.name}} if port.is_widget else {})
            for port in node.ports
        ]
        outputs = [{"name": name, "type": kind, "links": []} for name, kind in node.outputs]
        widgets = [port for port in node.ports if port.is_widget]
        return {
            "id": node.id, "type": node.class_type, "pos": list(node.at), "size": list(node.size), "flags": {},
            "order": order, "mode": 0, "inputs": inputs, "outputs": outputs, "title": node.title,
            "properties": properties,
            "widgets_values": [value for port in widgets for value in (node.values[port.name], *port.companion)],
        }  # fmt: skip

    def all_drawn(self) -> tuple[list[dict[str, Any]], list[Wire], list[dict[str, Any]]]:
        """The connected nodes, the wires and the points that these are led over.

        Wires from one output share the points that they begin with.
        """
        drawn = [self.drawn(node, order) for order, node in enumerate(self.nodes)]
        outputs = {node["id"]: node["outputs"] for node in drawn}
        wires: list[Wire] = []
        points: dict[tuple, dict[str, Any]] = {}
        for target, slot, source, end in self.ends(drawn):
            number = self.new_id("link")
            if end is not None:
                end["link"] = number
            if source.node in outputs:
                outputs[source.node][source.slot]["links"].append(number)
            parent: dict[str, int] = {}
            for length, at in enumerate(source.via, 1):
                key = (source.node, source.slot, source.via[:length])
                if key not in points:
                    points[key] = {"id": self.new_id("point"), **parent, "pos": list(at), "linkIds": []}
                points[key]["linkIds"].append(number)
                parent = {"parentId": points[key]["id"]}
            wires.append(Wire(number, source, target, slot, self.type_of(source), parent))
        return drawn, wires, list(points.values())

    def ends(self, drawn: list[dict[str, Any]]) -> Iterator[tuple[int, int, Output, dict[str, Any] | None]]:
        """Where each wire ends, a node and its input, and where it comes from; with the drawn input."""
        for node, shown in zip(self.nodes, drawn, strict=True):
            for slot, port in enumerate(node.ports):
                if port.name in node.wires:
                    yield node.id, slot, node.wires[port.name], shown["inputs"][slot]


class Subgraph(Sheet):
    """A part of a sheet that is one node there, with inputs and outputs of its own; the user can open it."""

    def __init__(self, name: str, sheet: Sheet):
        super().__init__(name, sheet.infos, sheet.files.values(), sheet.versions)
        self.last = sheet.last
        self.id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{sheet.name}/{name}"))
        self.inputs: list[Port] = []
        self.outputs: list[tuple[str, Output]] = []

    def input(self, name: str, kind: str, optional: bool = False, **options: Any) -> Output:
        """A new input, a socket or a widget by its type; `options` are the widget's."""
        self.inputs.append(Port(name, kind, optional, options))
        return Output(INSIDE, len(self.inputs) - 1)

    def output(self, name: str, wire: Output) -> None:
        self.outputs.append((name, wire))

    @property
    def ports(self) -> list[Port]:
        return sorted(self.inputs, key=lambda port: port.is_widget)

    @property
    def outputs_shown(self) -> list[tuple[str, str]]:
        return [(name, self.type_of(wire)) for name, wire in self.outputs]

    def type_of(self, wire: Output) -> str:
        return self.inputs[wire.slot].type if wire.node == INSIDE else super().type_of(wire)

    def ends(self, drawn: list[dict[str, Any]]) -> Iterator[tuple[int, int, Output, dict[str, Any] | None]]:
        yield from super().ends(drawn)
        for slot, (_, wire) in enumerate(self.outputs):
            yield OUTSIDE, slot, wire, None

    def to_definition(self) -> dict[str, Any]:
        """What a workflow file says of it, once for all the nodes that it is."""
        nodes, wires, reroutes = self.all_drawn()
        left, top = (min(node.at[axis] for node in self.nodes) for axis in (0, 1))
        right = max(node.at[0] + node.size[0] for node in self.nodes)
        inputs = [
            (port.name, port.type, [wire.id for wire in wires if wire.source.bare == Output(INSIDE, slot)])
            for slot, port in enumerate(self.inputs)
        ]
        outputs = [
            (name, kind, [wire.id for wire in wires if (wire.target, wire.slot) == (OUTSIDE, slot)])
            for slot, (name, kind) in enumerate(self.outputs_shown)
        ]
        return {
            "id": self.id,
            "version": 1,
            "state": {
                "lastGroupId": len(self.groups), "lastNodeId": self.last["node"], "lastLinkId": self.last["link"],
                "lastRerouteId": self.last["point"],
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": INSIDE, "bounding": [left - 220, top, 128, 48 + SLOT * len(inputs)]},
            "outputNode": {"id": OUTSIDE, "bounding": [right + 92, top, 128, 48 + SLOT * len(outputs)]},
            "inputs": self.own_slots(inputs, (left - 116, top + 24)),
            "outputs": self.own_slots(outputs, (right + 116, top + 24)),
            "widgets": [],
            "nodes": nodes,
            "groups": self.drawn_groups(),
            "links": [
                {
                    "id": wire.id, "origin_id": wire.source.node, "origin_slot": wire.source.slot,
                    "target_id": wire.target, "target_slot": wire.slot, "type": wire.type, **wire.parent,
                }
                for wire in wires
            ],
            "reroutes": reroutes,
            "extra": {},
        }  # fmt: skip

    def own_slots(self, slots: list[tuple[str, str, list[int]]], at: Point) -> list[dict[str, Any]]:
        """Inputs or outputs, below each other from `at` on: name, type and wires of each."""
        return [
            {
                "id": str(uuid.uuid5(uuid.UUID(self.id), f"{at[0]} {name}")), "name": name, "type": kind,
                "linkIds": links, "pos": [at[0], at[1] + SLOT * number],
            }
            for number, (name, kind, links) in enumerate(slots)
        ]  # fmt: skip


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
    """One input; with a choice, the chosen option's too; where a node takes as many as are connected, all of them and a
    free one."""
    if kind != "COMFY_AUTOGROW_V3":
        kind = options.get("widgetType", kind)  # of several types, the one with the widget
        yield Port(name, "COMBO" if isinstance(kind, list) else kind, optional, options)
        if kind == CHOICE:
            chosen = next(option["inputs"] for option in options["options"] if option["key"] == given[name])
            for inner, described in chosen.get("required", {}).items():
                yield from ports_named(f"{name}.{inner}", *described, optional=optional, given=given)
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
    """A widget's value, its default where a wire leads to it; raises ValueError where there is none."""
    value = given.get(port.name, port.options.get("default"))
    if isinstance(value, Output):
        return port.options.get("default", "")
    if value is None:
        raise ValueError(f"{port.name} needs a value")
    return value


def least_height(ports: list[Port], outputs: list[tuple[str, str]]) -> int:
    """What the graph editor needs to draw the node."""
    sockets = sum(not port.is_widget for port in ports)
    widgets = sum(1 + len(port.companion) for port in ports if port.is_widget)
    return max(sockets, len(outputs)) * SLOT + 6 + (widgets * WIDGET + MARGIN if widgets else 0)


def extent(start: Point, end: Point) -> Point:
    return end[0] - start[0], end[1] - start[1]
