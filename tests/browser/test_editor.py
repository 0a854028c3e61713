"""Workflow files in the real graph editor: UI and API form mean the same, the bundled ones are whole."""

import json
from pathlib import Path
from typing import Any

from tests.browser.editor import Editor, without_meta
from workflows.client import Client


def stock_graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
    }


def test_api_to_ui_and_back_changes_nothing(editor: Editor, server: Client, tmp_path: Path) -> None:
    graph = stock_graph()
    (tmp_path / "api.json").write_text(json.dumps(graph))
    editor.open(tmp_path / "api.json")
    (tmp_path / "ui.json").write_text(json.dumps(editor.to_ui()))
    editor.open(tmp_path / "ui.json")
    assert without_meta(editor.to_api()) == graph
    assert not editor.complaint()
    assert server.run(editor.to_api()).images[0].getpixel((0, 0)) == (0, 0, 255)


def test_a_missing_node_is_complained_about(editor: Editor, tmp_path: Path) -> None:
    graph = stock_graph() | {"3": {"class_type": "NoSuchNode", "inputs": {"image": ["1", 0]}}}
    (tmp_path / "api.json").write_text(json.dumps(graph))
    editor.open(tmp_path / "api.json")
    assert "NoSuchNode" in editor.complaint() or "missing" in editor.complaint().lower()
