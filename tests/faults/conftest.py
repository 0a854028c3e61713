"""What the fault tests share: a watched server that meets every fault, and proof after each that it is unharmed."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from painter.family import write_random_family
from tests.faults import graphs
from workflows.client import Client
from workflows.graph import GraphBuilder
from workflows.server import Server, serve

ROOT = Path(__file__).resolve().parents[2]
SEEDS_AT_ONCE = 20

WATCHER = """
import os, sys

WATCHED = {"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
           "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def watch(event, arguments):
    if event in WATCHED:
        os.write(log, (repr((event, *map(str, arguments))) + "\\n").encode("utf-8", "backslashreplace"))

sys.addaudithook(watch)
"""
"""Stands before the pack's own door: writes down what the server opens, changes, starts and connects to."""


@dataclass(frozen=True)
class Faulty:
    """The server that meets the faults: a client of it, its process and folders, its models, what it was seen doing."""

    client: Client
    server: Server
    models: Path
    log: Path

    def seen(self) -> list[tuple[str, ...]]:
        """All audit events so far: name and arguments, as text."""
        return [ast.literal_eval(line) for line in self.log.read_text().splitlines()]

    def memory(self, key: str) -> int:
        """Bytes of the server's process: VmRSS now, VmHWM at its peak."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+)", status)[1]) * 1024

    def cost(self, work: Callable[[], object]) -> tuple[float, int]:
        """Seconds of computing and bytes of memory, at the peak, that the server spends while `work` is done."""
        process = psutil.Process(self.server.process.pid)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak is now
        before, memory = process.cpu_times(), self.memory("VmRSS")
        work()
        after = process.cpu_times()
        return after.user + after.system - before.user - before.system, self.memory("VmHWM") - memory


@pytest.fixture(scope="session")
def faulty(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    folder = tmp_path_factory.mktemp("faulty")
    write_random_family(folder / "models")
    (folder / "models" / "embeddings").mkdir()
    pack = watched_pack(folder / "pack", folder / "log")
    with serve(folder / "models", comfyui=checkout, pack=pack, options=("--cpu", "--fp32-unet")) as server:
        yield Faulty(Client(server.address), server, folder / "models", folder / "log")


def watched_pack(folder: Path, log: Path) -> Path:
    """The pack, by links to its parts, with the watcher before its door."""
    folder.mkdir()
    for part in ROOT.iterdir():
        if part.name != "__init__.py" and not part.name.startswith("."):
            (folder / part.name).symlink_to(part)
    (folder / "__init__.py").write_text(WATCHER.replace("LOG", repr(str(log))) + (ROOT / "__init__.py").read_text())
    return folder


@pytest.fixture(scope="session")
def client(faulty: Faulty) -> Client:
    return faulty.client


class References:
    """Pictures of another server, that has met no fault; it paints many in one run, and each is used once."""

    def __init__(self, client: Client):
        self.client, self.next_seed = client, 10_000
        self.unused: dict[str, list[tuple[int, np.ndarray]]] = {}

    def take(self, file: str) -> tuple[int, np.ndarray]:
        """A seed that no other server has painted yet, and its picture."""
        unused = self.unused.setdefault(file, [])
        if not unused:
            add, seeds = GraphBuilder(), range(self.next_seed, self.next_seed + SEEDS_AT_ONCE)
            self.next_seed += SEEDS_AT_ONCE
            painted = graphs.text_to_image(add, file, seeds)
            result = self.client.run(add.graph)
            unused += [(seed, graphs.pixels(result, saver)) for seed, (_, saver) in zip(seeds, painted, strict=True)]
        return unused.pop()


@pytest.fixture(scope="session")
def references(server: Client) -> References:
    return References(server)


@pytest.fixture
def unharmed(request: pytest.FixtureRequest, faulty: Faulty, references: References) -> Iterator[None]:
    """After each fault the server paints what a server does that has seen none; nothing comes from its cache."""
    yield
    file = getattr(request.module, "BASE", graphs.DEV)
    seed, reference = references.take(file)
    add = GraphBuilder()
    (painted,) = graphs.text_to_image(add, file, [seed])
    assert graphs.alike(graphs.run(faulty.client, add, painted), reference)
