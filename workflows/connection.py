"""A ComfyUI server as a program sees it: questions, uploads, the queue, and the messages about running workflows.

For callers with an event loop; `client.py` has the same for all others.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import aiohttp

from flux_core.errors import Flux1Error

from .graph import Graph, named, title

SILENCE = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
"""Seconds after which a server that says nothing counts as gone; one that loads a large model is quiet for a while."""


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


class ServerGone(Flux1Error):
    """Nobody answers there, or no longer."""

    def __init__(self, address: str, found: str, fix: str = "start it again and look at the end of its log"):
        super().__init__(
            "The ComfyUI server does not answer", expected=f"a server at {address}", found=found, fix=fix
        )  # fmt: skip


class Events:
    """The messages that the server sends to one client."""

    def __init__(self, address: str, socket: aiohttp.ClientWebSocketResponse):
        self.address, self.socket = address, socket

    async def next(self, patience: float | None = None) -> tuple[str, dict[str, Any]] | None:
        """Kind and data of the next message; None when there is none for `patience` seconds.

        Raises ServerGone when the connection ends.
        """
        while True:
            try:
                message = await self.socket.receive(timeout=patience)
            except asyncio.TimeoutError:
                return None
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    return event["type"], event["data"]
                case aiohttp.WSMsgType.BINARY:  # a preview picture
                    continue
                case _:
                    raise ServerGone(self.address, "the connection ended while the workflow ran")


class Connection:
    """The server at `address` (`http://host:port`), inside `async with`.

    Every method raises ServerGone when the server can't be reached.
    """

    def __init__(self, address: str):
        self.address = address

    async def __aenter__(self) -> "Connection":
        self.session = aiohttp.ClientSession(self.address, timeout=SILENCE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @asynccontextmanager
    async def reaching(self) -> AsyncIterator[None]:
        """Says in our words that nobody is there."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise ServerGone(self.address, error.strerror or "nobody there") from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError) as error:
            raise ServerGone(self.address, str(error) or "no answer in time") from error

    @asynccontextmanager
    async def answer(self, method: str, path: str, **content: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.reaching(), self.session.request(method, path, **content) as answer:
            if answer.status in (502, 503, 504):  # said by a proxy whose server is gone
                raise ServerGone(self.address, f"status {answer.status}")
            yield answer

    async def get(self, path: str) -> Any:
        """The JSON that the server answers, for instance to `/object_info`; Flux1Error when it is no ComfyUI."""
        async with self.answer("GET", path) as answer:
            if answer.status != 200:
                raise self.stranger(path, f"status {answer.status}")
            try:
                return await answer.json()
            except (aiohttp.ContentTypeError, ValueError) as error:
                raise self.stranger(path, "no JSON") from error

    def stranger(self, path: str, found: str) -> Flux1Error:
        return Flux1Error(
            "This server is no ComfyUI that can be used", expected=f"an answer to {path} at {self.address}",
            found=found, fix="give the address that ComfyUI prints when it has started",
        )  # fmt: skip

    async def post(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of the server's answer, for instance to `/interrupt` or `/free`."""
        async with self.answer("POST", path, json=body) as answer:
            return answer.status, await answer.text()

    async def upload(self, content: bytes, name: str, folder: str = "", overwrite: bool = True) -> str:
        """Puts a picture into the server's input folder; returns the name that LoadImage knows it by.

        That is another one where a different picture of this name must not be overwritten. Raises RunError when the
        server refuses it.
        """
        form = aiohttp.FormData(
            {"subfolder": folder} | ({"overwrite": "true"} if overwrite else {}), quote_fields=False
        )
        form.add_field("image", content, filename=name)
        async with self.answer("POST", "/upload/image", data=form) as answer:
            if answer.status != 200:
                raise RunError(f"The server refused the picture {name}: status {answer.status}", {}, answer.status)
            put = await answer.json()
        return f"{put['subfolder']}/{put['name']}".lstrip("/")

    async def queue(self, graph: Graph, client_id: str, prompt_id: str) -> None:
        """Queues the workflow under this id (a UUID); raises RunError when all or a part of it is refused."""
        body = {"prompt": graph, "client_id": client_id, "prompt_id": prompt_id}
        status, text = await self.post("/prompt", body)
        answer = json.loads(text) if text.startswith("{") else {"error": {"message": text}}
        if status != 200:
            raise RunError(refusal(answer), answer, status)
        if answer["node_errors"]:  # some outputs are fine and queued, others left out
            await self.withdraw([prompt_id])
            await self.post("/interrupt", {"prompt_id": prompt_id})
            raise RunError(refusal(answer), answer, status)
        if answer["prompt_id"] != prompt_id:
            raise self.stranger("/prompt", "another prompt id than the one given: ComfyUI is older than 0.30.0")

    async def withdraw(self, prompt_ids: list[str]) -> None:
        """Takes workflows that wait out of the queue."""
        await self.post("/queue", {"delete": prompt_ids})

    async def queued(self) -> set[str]:
        """The ids of the prompts that run or wait, of all clients."""
        queue = await self.get("/queue")
        return {entry[1] for entry in [*queue["queue_running"], *queue["queue_pending"]]}

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The prompt's entry in the history, with `outputs` and `status`; None when it has not ended."""
        return (await self.get(f"/history/{prompt_id}")).get(prompt_id)

    async def view(self, file: dict[str, str]) -> bytes:
        """The content of a file that an output names; raises RunError when the server has it no more."""
        async with self.answer("GET", "/view", params=file) as answer:
            if answer.status != 200:
                raise RunError(f"The server gives no {file['filename']}: status {answer.status}", {}, answer.status)
            return await answer.read()

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[Events]:
        """Opened before anything is queued, or the first messages of a quick workflow would be missed."""
        path = f"/ws?clientId={client_id}"
        async with self.reaching(), self.session.ws_connect(path, max_msg_size=0) as socket:
            yield Events(self.address, socket)

    async def until_there(self, patience: float, say: Callable[[str], None]) -> None:
        """Waits until the server answers, asking at growing distances; says at once when it does not.

        Raises ServerGone after `patience` seconds.
        """
        deadline, pause = monotonic() + patience, 0.5
        waiting = False
        while True:
            try:
                await self.get("/system_stats")
                break
            except ServerGone as gone:
                if monotonic() + pause > deadline:
                    fix = "start ComfyUI, or give the right address with --server; then run the same command again"
                    raise ServerGone(self.address, f"none within {patience:.0f} s ({gone.found})", fix) from gone
                if not waiting:
                    say(f"No ComfyUI answers at {self.address}: {gone.found}. Trying for up to {patience:.0f} s ...")
                    waiting = True
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 10)
        if waiting:
            say("ComfyUI answers.")


def advance(graph: Graph, cached: set[str], nodes: dict[str, dict[str, Any]]) -> tuple[float, str]:
    """How much of the workflow is done, in [0, 1], and the title of the node at work with its step."""
    done = sum(node["value"] / node["max"] for node in nodes.values() if node["max"] and node["node_id"] not in cached)
    at_work = [node for node in nodes.values() if node["state"] == "running" and node["display_node_id"] in graph]
    step = ""
    if at_work:
        node = at_work[-1]
        step = title(graph[node["display_node_id"]]) + (
            f" {node['value']:.0f}/{node['max']:.0f}" if node["max"] > 1 else ""
        )
    return min(done / max(len(graph) - len(cached), 1), 1.0), step


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
    """What the server's message about a failed node says."""
    key = data["node_id"]
    name = named(graph, key) if key in graph else f"node {key} ({data['node_type']})"
    return f"{name[0].upper()}{name[1:]} failed: {data['exception_message'].strip()}"
