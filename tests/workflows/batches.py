"""What the tests of the batch client share: its command line in a process of its own, and what it leaves."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflows.jobs import Job, batch
from workflows.settable import with_texts
from workflows.source import find_source

ROOT = Path(__file__).parents[2]
SMALL = ["text_to_image_schnell", "--set", "width=64", "--set", "height=64"]
SEED = 42  # of the bundled workflow


def small(steps: int = 1, repeat: int = 1, seed: int = SEED) -> list[Job]:
    graph = with_texts(find_source(SMALL[0]).graph, ["width=64", "height=64", f"steps={steps}", f"seed={seed}"])
    return batch(SMALL[0], graph, None, [], repeat)


def start(*arguments: str, folder: Path) -> subprocess.Popen:
    """`python -m workflows run` with the results in `folder`, its output beside them."""
    command = [sys.executable, "-m", "workflows", "run", *arguments, "--out", str(folder)]
    folder.mkdir(exist_ok=True)
    with open(folder / "client.log", "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def said(folder: Path) -> str:
    return (folder / "client.log").read_text()


def lines(folder: Path, *events: str) -> list[dict[str, Any]]:
    """The journal's whole lines of these kinds."""
    path = folder / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [line for line in map(json.loads, text[: text.rfind("\n") + 1].splitlines()) if line["event"] in events]


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def seeds(folder: Path) -> list[int]:
    """Of the pictures by name, as the server wrote them into the files."""
    return [seed_of(file) for file in sorted(folder.glob("*.png"))]


def seed_of(file: Path) -> int:
    graph = json.loads(Image.open(file).text["prompt"])
    (sampler,) = (node for node in graph.values() if node["class_type"] == "Flux1Sampler")
    return sampler["inputs"]["seed"]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))
