"""What became of every job, line by line in a file that survives any end of client, server or machine."""

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from flux_core.errors import Flux1Error

from .jobs import Job
from .results import unwritable


class Journal:
    """The state that the lines so far add up to, and the file for more of them.

    sent: prompt ids by job name, of the jobs that a server was given; lost: how often a job was at work on a server
    that lost it; done: result files by job name.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.client_id = ""
        self.digests: dict[str, str] = {}
        self.sent: dict[str, str] = {}
        self.lost: Counter[str] = Counter()
        self.done: dict[str, list[str]] = {}

    def write(self, **line: Any) -> None:
        """Adds a line and returns once it lies on the disk."""
        text = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line})
        try:
            self.file.write(text.encode() + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise unwritable(Path(self.file.name), error) from error
        self.apply(line)

    def apply(self, line: dict[str, Any]) -> None:
        match line:
            case {"event": "client", "client_id": client_id}:
                self.client_id = client_id
            case {"event": "sent", "job": job, "prompt_id": prompt_id, "digest": digest}:
                self.sent[job], self.digests[job] = prompt_id, digest
            case {"event": "lost", "job": job}:
                self.lost[job] += 1
            case {"event": "failed", "job": job}:  # a later run tries it again
                self.sent.pop(job, None)
                del self.lost[job]
            case {"event": "done", "job": job, "files": files}:
                self.done[job] = files

    def open_jobs(self, jobs: Sequence[Job], out: Path) -> list[Job]:
        """The jobs that are still to be done, in their order.

        Raises Flux1Error when the results of other work have one of their names.
        """
        for job in jobs:
            same = self.digests.get(job.name) == job.digest
            if job.name in self.sent and not same and job.name not in self.done:
                del self.sent[job.name]  # was to be done with other settings
            if (job.name in self.done and not same) or (job.name not in self.digests and taken(out, job.name)):
                raise Flux1Error(
                    f"There are results called {job.name} already, of other work", file=str(out),
                    expected="a folder without them", found="the same name with other settings",
                    fix="give another folder with --out",
                )  # fmt: skip
        return [job for job in jobs if job.name not in self.done]


def taken(out: Path, name: str) -> bool:
    return any(file.stem in (name, f"{name}_1") for file in out.iterdir())


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """The journal in this file, new or continued, for this client alone.

    Raises Flux1Error when another client has it or it can't be read.
    """
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0), open(path, "a+b") as file:
            state = Journal(file)
            replay(state, path)
            if not state.client_id:
                state.write(event="client", client_id=uuid.uuid4().hex)
            yield state
    except Timeout as error:
        raise Flux1Error(
            "Another client is at work on this batch", file=str(path), expected="one client for a journal",
            found="the journal is in use", fix="wait for the other one, or give another folder with --out",
        ) from error  # fmt: skip


def replay(state: Journal, path: Path) -> None:
    state.file.seek(0)
    content = state.file.read()
    whole = content.rfind(b"\n") + 1
    state.file.truncate(whole)  # what comes after was being written when the client ended
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            state.apply(json.loads(line))
        except (ValueError, KeyError) as error:
            raise Flux1Error(
                "The journal can't be read", file=str(path), expected="a JSON object in each line",
                found=f"line {number}: {line[:80]!r}", fix="give another folder with --out",
            ) from error  # fmt: skip
