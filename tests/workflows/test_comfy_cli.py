"""Every bundled workflow as comfy-cli sees it: known nodes, known inputs, values in range, wires that fit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from workflows.client import Client
from workflows.graph import Graph, read_graph

API = sorted((Path(__file__).parents[2] / "workflows" / "api").glob("*.json"))


def validated(file: Path, server: Client, home: Path) -> dict[str, Any]:
    """What `comfy workflow validate` answers, asking the running server and nobody else."""
    comfy = shutil.which("comfy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    address = urlsplit(server.address)
    command = [comfy, "--skip-prompt", "--json", "workflow", "validate", "--workflow", str(file), "--where", "local",
               "--host", address.hostname, "--port", str(address.port)]  # fmt: skip
    environment = os.environ | {"HOME": str(home), "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout)


def broken(graph: Graph) -> Graph:
    """With a sampler that is asked for no steps."""
    return {
        key: node | {"inputs": node["inputs"] | ({"steps": 0} if "steps" in node["inputs"] else {})}
        for key, node in graph.items()
    }


@pytest.mark.parametrize("file", API, ids=lambda file: file.stem)
def test_comfy_cli_finds_nothing_wrong(file: Path, server: Client, tmp_path: Path) -> None:
    for node in read_graph(file).values():
        if node["class_type"] == "LoadImage":
            server.upload(Image.new("RGB", (64, 48)), node["inputs"]["image"])
    answer = validated(file, server, tmp_path)
    assert answer["ok"] and answer["data"]["valid"]
    assert not answer["data"]["errors"] and not answer["data"]["warnings"]


def test_comfy_cli_would_find_what_is_wrong(server: Client, tmp_path: Path) -> None:
    """Else the test above would hold for a check that looks at nothing."""
    (tmp_path / "broken.json").write_text(json.dumps(broken(read_graph(API[0]))))
    answer = validated(tmp_path / "broken.json", server, tmp_path)
    assert not answer["ok"] and "steps" in json.dumps(answer)
