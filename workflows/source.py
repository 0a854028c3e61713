"""Where a workflow comes from: a bundled one by its name, or a file in API format or in the graph editor's own."""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_core.errors import Flux1Error

from .graph import API_FORMAT, Graph, check_graph, is_ui, read_graph, read_json
from .sheet import Info

WORKFLOWS = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """A workflow in API format, in the graph editor's (`ui`) or in both."""

    name: str
    graph: Graph | None
    ui: Mapping[str, Any] | None

    @property
    def headline(self) -> str:
        """The first line of its note."""
        notes = [node["widgets_values"][0] for node in self.nodes() if node["type"] == "MarkdownNote"]
        return notes[0].splitlines()[0].lstrip("# ") if notes else ""

    @property
    def models(self) -> dict[str, Mapping[str, str]]:
        """`directory` and `url` by file name."""
        return {model["name"]: model for node in self.nodes() for model in node["properties"].get("models", [])}

    @property
    def packs(self) -> dict[str, str]:
        """Their names in ComfyUI's registry by node type."""
        cnr_ids = {node["type"]: node["properties"].get("cnr_id") for node in self.nodes()}
        return {kind: pack for kind, pack in cnr_ids.items() if pack}

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        """Those of the graph editor's format, in subgraphs too."""
        if self.ui:
            for sheet in (self.ui, *self.ui.get("definitions", {}).get("subgraphs", [])):
                yield from ({"properties": {}} | node for node in sheet["nodes"])

    def api(self, infos: Mapping[str, Info]) -> Graph:
        """In API format, if need be by comfy-cli's converter with a server's `/object_info`."""
        if self.graph:
            return self.graph
        from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api

        try:
            return check_graph(convert_ui_to_api(dict(self.ui), dict(infos)), self.name)
        except WorkflowConversionError as error:
            raise Flux1Error(
                "comfy-cli can't convert this workflow", file=self.name, expected="one that it understands",
                found=str(error), fix="open it in the graph editor and use Workflow > Export (API)",
            ) from error  # fmt: skip


def bundled() -> list[str]:
    return sorted(file.stem for file in (WORKFLOWS / "api").glob("*.json"))


def find_source(name: str) -> Source:
    """The bundled workflow of this name, or the one in this file; raises Flux1Error when it can't be queued."""
    if name in bundled():
        return Source(name, read_graph(WORKFLOWS / "api" / f"{name}.json"), read_json(WORKFLOWS / f"{name}.json"))
    file = Path(name)
    if not file.is_file():
        raise Flux1Error(
            f"There is no workflow {name!r}", expected="a file, or the name of a bundled workflow",
            found=f"no such file; bundled are {', '.join(bundled())}", fix="give one of these",
        )  # fmt: skip
    content = read_json(file)
    if is_ui(content):
        if not importlib.util.find_spec("comfy_cli"):
            raise Flux1Error(
                "This workflow can't be queued as it is", file=file.name, expected=API_FORMAT,
                found="a workflow in UI format, and no comfy-cli that could convert it",
                fix="use Workflow > Export (API) in the graph editor, or `uv run --with comfy-cli python -m workflows`",
            )  # fmt: skip
        return Source(file.stem, None, content)
    return Source(file.stem, check_graph(content, file.name), None)
