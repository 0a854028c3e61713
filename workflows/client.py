"""Queues workflows on a running ComfyUI server, follows them and brings their pictures back."""

import asyncio
import io
import threading
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from .connection import Connection, Events, RunError, advance, failure
from .graph import Graph, check_graph
from .progress import Progress

T = TypeVar("T")
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Result:
    """What a finished workflow left: every node's UI output, its pictures in order, and which nodes did not run."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    files: list[bytes]
    cached: set[str] = field(default_factory=set)

    @property
    def images(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(file)) for file in self.files]


class Client:
    """One server at `address` (`http://host:port`); every method waits for its answer.

    The work is done on an event loop in a thread of its own, so that a caller who runs a loop too is not disturbed.
    """

    def __init__(self, address: str):
        self.address = address
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def upload(self, image: Image.Image | Path, name: str) -> str:
        """Puts a picture into the server's input folder; returns the name that LoadImage knows it by."""
        return self.wait(lambda server: server.upload(encoded(image), name))

    def queue(self, graph: Graph) -> str:
        """Queues the workflow and returns its prompt id without waiting for the result."""
        prompt_id = str(uuid.uuid4())
        self.wait(lambda server: server.queue(check_graph(graph), uuid.uuid4().hex, prompt_id))
        return prompt_id

    def run(self, graph: Graph, progress: bool = False) -> Result:
        """Queues the workflow, waits for its end, with a progress bar if wanted, and fetches its pictures.

        Raises Flux1Error for a workflow that can't be sent, RunError for one that is refused or fails.
        """
        check_graph(graph)
        with Progress(total=1, hidden=not progress) as bar:
            return self.wait(lambda server: run(server, graph, bar.at))

    def get(self, path: str) -> Any:
        """The JSON that the server answers to GET, for instance `/object_info`."""
        return self.wait(lambda server: server.get(path))

    def post(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of the server's answer to POST, for instance `/interrupt` or `/free`."""
        return self.wait(lambda server: server.post(path, body))

    def wait(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        async def connected() -> T:
            async with Connection(self.address) as server:
                return await work(server)

        future = asyncio.run_coroutine_threadsafe(connected(), self.loop)
        try:
            return future.result()
        finally:
            future.cancel()


async def run(server: Connection, graph: Graph, report: Report) -> Result:
    client_id, prompt_id = uuid.uuid4().hex, str(uuid.uuid4())
    async with server.events(client_id) as events:
        await server.queue(graph, client_id, prompt_id)
        cached = await follow(events, graph, prompt_id, report)
    outputs = (await server.history(prompt_id))["outputs"]
    pictures = [picture for output in outputs.values() for picture in output.get("images", [])]
    return Result(prompt_id, outputs, [await server.view(picture) for picture in pictures], cached)


async def follow(events: Events, graph: Graph, prompt_id: str, report: Report) -> set[str]:
    """Reads messages until the prompt has ended well; returns the ids of the nodes that did not have to run."""
    cached: set[str] = set()
    while True:
        kind, data = await events.next()
        if data.get("prompt_id") != prompt_id:
            continue
        match kind:
            case "execution_cached":
                cached |= set(data["nodes"])
            case "progress_state":
                report(*advance(graph, cached, data["nodes"]))
            case "executing" if data["node"] is None:  # said once the result is in the history
                report(1.0, "done")
                return cached
            case "execution_error":
                raise RunError(failure(graph, data), data)
            case "execution_interrupted":
                raise RunError("The workflow was interrupted", data)


def encoded(image: Image.Image | Path) -> bytes:
    if isinstance(image, Path):
        return image.read_bytes()
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
