"""Queues workflows on a running ComfyUI server, follows them and brings their pictures back."""

import asyncio
import io
import json
import threading
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from PIL import Image
from tqdm import tqdm

from flux_core.errors import Flux1Error

from .graph import Graph, check_graph, title

T = TypeVar("T")
Report = Callable[[float, str], None]


class RunError(RuntimeError):
    """The server refused a workflow (`status` 400, `node_errors`) or a node of it failed (`node_id`, `node_type`).

    `answer` is what the server said, whole; the text names every node and what it said.
    """

    def __init__(self, text: str, answer: dict[str, Any], status: int | None = None):
        super().__init__(text)
        self.answer, self.status = answer, status
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        self.node_id: str | None = answer.get("node_id")
        self.node_type: str | None = answer.get("node_type")


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
        return self.wait(self._upload(encoded(image), name))["name"]

    def queue(self, graph: Graph) -> str:
        """Queues the workflow and returns its prompt id without waiting for the result."""
        return self.wait(self._queue(check_graph(graph), uuid.uuid4().hex))["prompt_id"]

    def run(self, graph: Graph, progress: bool = False) -> Result:
        """Queues the workflow, waits for its end, with a progress bar if wanted, and fetches its pictures.

        Raises Flux1Error for a workflow that can't be sent, RunError for one that is refused or fails.
        """
        check_graph(graph)
        form = "{desc:<32.32} {percentage:3.0f}% |{bar}| {elapsed}"
        with tqdm(total=1.0, bar_format=form, disable=not progress) as bar:

            def report(done: float, what: str) -> None:
                bar.set_description_str(what, refresh=False)
                bar.n = done
                bar.refresh()

            return self.wait(self._run(graph, report))

    def get(self, path: str) -> Any:
        """The JSON that the server answers to GET, for instance `/object_info`."""
        return self.wait(self._get(path))

    def post(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of the server's answer to POST, for instance `/interrupt` or `/free`."""
        return self.wait(self._post(path, body))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except aiohttp.ClientConnectionError as error:
            raise gone(self.address, str(error)) from error
        finally:
            future.cancel()

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.address, timeout=aiohttp.ClientTimeout(total=None, sock_connect=10))

    async def _get(self, path: str) -> Any:
        async with self.session() as session, session.get(path) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def _post(self, path: str, body: Any) -> tuple[int, str]:
        async with self.session() as session, session.post(path, json=body) as answer:
            return answer.status, await answer.text()

    async def _upload(self, content: bytes, name: str) -> dict[str, str]:
        form = aiohttp.FormData({"overwrite": "true"}, quote_fields=False)
        form.add_field("image", content, filename=name)
        async with self.session() as session, session.post("/upload/image", data=form) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def _queue(self, graph: Graph, client_id: str) -> dict[str, Any]:
        status, text = await self._post("/prompt", {"prompt": graph, "client_id": client_id})
        if status != 200:
            answer = json.loads(text) if text.startswith("{") else {"error": {"message": text}}
            raise RunError(refusal(answer), answer, status)
        answer = json.loads(text)
        if answer["node_errors"]:  # some outputs are fine and queued, others left out
            await self._post("/queue", {"delete": [answer["prompt_id"]]})
            await self._post("/interrupt", {"prompt_id": answer["prompt_id"]})
            raise RunError(refusal(answer), answer, status)
        return answer

    async def _run(self, graph: Graph, report: Report) -> Result:
        client_id = uuid.uuid4().hex
        async with self.session() as session:
            # The socket is opened first, or the first messages of a quick workflow would be missed.
            async with session.ws_connect(f"/ws?clientId={client_id}", max_msg_size=0) as socket:
                prompt_id = (await self._queue(graph, client_id))["prompt_id"]
                cached = await self._follow(socket, graph, prompt_id, report)
            outputs = (await self._get(f"/history/{prompt_id}"))[prompt_id]["outputs"]
            pictures = [picture for output in outputs.values() for picture in output.get("images", [])]
            return Result(prompt_id, outputs, [await self._view(session, picture) for picture in pictures], cached)

    async def _follow(
        self, socket: aiohttp.ClientWebSocketResponse, graph: Graph, prompt_id: str, report: Report
    ) -> set[str]:
        """Reads the socket until the prompt has ended well; returns the ids of the nodes that did not have to run."""
        cached: set[str] = set()
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # a preview picture
            event = json.loads(message.data)
            data = event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            match event["type"]:
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
        raise gone(self.address, "the connection ended while the workflow ran")

    async def _view(self, session: aiohttp.ClientSession, picture: dict[str, str]) -> bytes:
        async with session.get("/view", params=picture) as answer:
            answer.raise_for_status()
            return await answer.read()


def encoded(image: Image.Image | Path) -> bytes:
    if isinstance(image, Path):
        return image.read_bytes()
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def advance(graph: Graph, cached: set[str], nodes: dict[str, dict[str, Any]]) -> tuple[float, str]:
    """How much of the workflow is done, in [0, 1], and the title of the node at work."""
    done = sum(node["value"] / node["max"] for node in nodes.values() if node["max"] and node["node_id"] not in cached)
    at_work = [node["display_node_id"] for node in nodes.values() if node["state"] == "running"]
    running = title(graph[at_work[-1]]) if at_work and at_work[-1] in graph else ""
    return min(done / max(len(graph) - len(cached), 1), 1.0), running


def refusal(answer: dict[str, Any]) -> str:
    """All that the server finds wrong with a workflow, a line for each error."""
    error = answer.get("error") or {}
    problem = error if isinstance(error, str) else f"{error.get('message', '')} {error.get('details', '')}".strip()
    lines = [
        f"Node {key} ({node.get('class_type')}): {each.get('message', '')}: {each.get('details', '')}"
        for key, node in (answer.get("node_errors") or {}).items()
        for each in node["errors"]
    ]
    return "\n".join([f"The server refused the workflow: {problem}".rstrip(": "), *lines])


def failure(graph: Graph, data: dict[str, Any]) -> str:
    node = graph.get(data["node_id"])
    name = f"{title(node)!r} ({data['node_type']})" if node else data["node_type"]
    return f"Node {data['node_id']} {name} failed: {data['exception_message'].strip()}"


def gone(address: str, found: str) -> Flux1Error:
    return Flux1Error(
        "The ComfyUI server does not answer", expected=f"a server at {address}", found=found,
        fix="start it again and look at the end of its log",
    )  # fmt: skip
