"""Runs a batch's jobs on a server, each exactly once, whatever happens to the server, the network or the client.

What is true is asked of the server's queue and history; its messages only say when to ask, and how far a job is.
"""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from .connection import Connection, RunError, ServerGone, advance, failure
from .graph import Graph
from .jobs import Job
from .journal import Journal
from .progress import Progress, say
from .results import names, result_files, write_whole
from .settable import settings, with_values

ASK = 10
"""Seconds after which queue and history are asked without a message, which may have been lost."""
ENOUGH = 3
"""A job that a server was lost over this often is what ends it."""


class Runner:
    """Runs `jobs`, fills the folder `out` with their results and `failed` with the others' errors by job name.

    `ahead` is how many jobs lie in the server's queue at a time, `patience` how many seconds a lost server may take
    to come back.
    """

    def __init__(
        self,
        server: Connection,
        jobs: Sequence[Job],
        journal: Journal,
        out: Path,
        progress: Progress,
        ahead: int = 50,
        patience: float = 300,
    ):
        self.server, self.journal, self.out, self.progress = server, journal, out, progress
        self.ahead, self.patience = ahead, patience
        self.open = {job.name: job for job in journal.open_jobs(jobs, out)}
        self.total = len(jobs)
        progress.at(self.ended, "")
        self.failed: dict[str, str] = {}
        self.here: dict[str, Job] = {}  # the jobs that the server has, by prompt id
        self.accepted = False
        self.uploaded: dict[str, str] = {}  # the server's names of pictures by ours
        self.cached: set[str] = set()  # nodes of the running job

    async def run(self) -> None:
        """Until every job is done or has failed.

        Raises ServerGone when the server is lost and does not come back, RunError when it refuses the first job,
        Flux1Error when a result can't be written. The journal can be continued after each of them.
        """
        try:
            while self.open:
                try:
                    await self.follow()
                except ServerGone as gone:
                    say(f"Lost the server: {gone.found}.")
                    await self.server.until_there(self.patience, say)
                    await asyncio.sleep(1)  # where it answers and yet cuts every connection
        except asyncio.CancelledError:
            with suppress(ServerGone):
                await self.server.withdraw([self.journal.sent[name] for name in self.open if name in self.journal.sent])
            raise

    async def follow(self) -> None:
        """As long as the connection holds."""
        async with self.server.events(self.journal.client_id) as events:
            self.uploaded.clear()
            asked = float("-inf")
            while self.open:
                if monotonic() - asked >= ASK:
                    await self.ask()
                    asked = monotonic()
                elif event := await events.next(max(asked + ASK - monotonic(), 0.1)):
                    await self.react(*event)

    async def ask(self) -> None:
        """Learns what became of the jobs that were sent, and sends what the server does not have."""
        sent = {self.journal.sent[name]: job for name, job in self.open.items() if name in self.journal.sent}
        # The queue first: a job that ends between the two questions is then found in the history.
        queued = await self.server.queued()
        self.here = {prompt_id: job for prompt_id, job in sent.items() if prompt_id in queued}
        lost = []
        for prompt_id, job in sent.items():
            if prompt_id in queued:
                continue
            if ended := await self.server.history(prompt_id):
                await self.finish(job, ended)
            else:
                lost.append(job)
        if lost:
            self.was_lost(lost[0])
        await self.top_up()

    def was_lost(self, job: Job) -> None:
        """The server was given this job and knows nothing of it: it was restarted, with the first such job at work."""
        self.journal.write(event="lost", job=job.name)
        if self.journal.lost[job.name] >= ENOUGH:
            self.fail(job, f"the server ended {ENOUGH} times while it was at work on this job; see the end of its log")

    async def top_up(self) -> None:
        for job in list(self.open.values())[: self.ahead]:
            if self.journal.sent.get(job.name) not in self.here:
                await self.send(job)

    async def send(self, job: Job) -> None:
        prompt_id = str(uuid.uuid4())
        try:
            graph = await self.with_uploads(job)
            # Written down first: if the answer is lost, queue and history still know the job by this id.
            self.journal.write(event="sent", job=job.name, prompt_id=prompt_id, digest=job.digest)
            await self.server.queue(graph, self.journal.client_id, prompt_id)
        except OSError as error:  # its picture can't be read
            self.fail(job, str(error))
        except RunError as error:
            self.fail(job, str(error))
            if not self.accepted:  # the others are of its kind
                raise
        else:
            self.here[prompt_id] = job
            self.accepted = True

    async def with_uploads(self, job: Job) -> Graph:
        """The job's workflow, its pictures on the server."""
        for name, path in job.pictures.items():
            if name not in self.uploaded:
                folder, _, file = name.partition("/")
                self.uploaded[name] = await self.server.upload(path.read_bytes(), file, folder, overwrite=False)
        names = {
            (each.node, each.input): self.uploaded[each.value]
            for each in settings(job.graph)
            if each.input == "image" and each.value in job.pictures
        }
        return with_values(job.graph, names)

    async def react(self, kind: str, data: dict[str, Any]) -> None:
        """To one message of the server."""
        prompt_id = data.get("prompt_id")
        job = self.here.get(prompt_id)
        if job is None:
            return
        match kind:
            case "execution_start":
                self.cached = set()
            case "execution_cached":
                self.cached = set(data["nodes"])
            case "progress_state":
                share, step = advance(job.graph, self.cached, data["nodes"])
                self.progress.at(self.ended + share, f"{job.name}: {step}")
            case "executing" if data["node"] is None:  # said once the result is in the history
                if ended := await self.server.history(prompt_id):
                    del self.here[prompt_id]
                    await self.finish(job, ended)
                    await self.top_up()

    async def finish(self, job: Job, ended: dict[str, Any]) -> None:
        """Brings the results of a job that ran to its end into the folder, or notes how it failed."""
        if error := error_of(job.graph, ended):
            self.fail(job, error)
            return
        files = result_files(ended["outputs"])
        if not files:
            self.fail(job, "it left no file: the workflow has no node that saves something")
            return
        saved = names(job.name, files)
        for name, file in zip(saved, files, strict=True):
            try:
                content = await self.server.view(file)
            except RunError as error:
                self.fail(job, str(error))
                return
            write_whole(self.out / name, content)
        self.journal.write(event="done", job=job.name, files=saved)
        self.close(job, ", ".join(saved))

    def fail(self, job: Job, error: str) -> None:
        self.failed[job.name] = error
        self.journal.write(event="failed", job=job.name, error=error)
        self.close(job, f"FAILED: {error}")

    def close(self, job: Job, text: str) -> None:
        del self.open[job.name]
        say(f"[{self.ended}/{self.total}] {job.name}: {text}")
        self.progress.at(self.ended, "")

    @property
    def ended(self) -> int:
        return self.total - len(self.open)


def error_of(graph: Graph, ended: dict[str, Any]) -> str | None:
    """How the job failed, from its entry in the history."""
    status = ended["status"]
    if status["status_str"] == "success":
        return None
    for kind, data in reversed(status["messages"]):
        if kind == "execution_error":
            return failure(graph, data)
        if kind == "execution_interrupted":
            return "it was interrupted"
    return f"the server says {status['status_str']}"
