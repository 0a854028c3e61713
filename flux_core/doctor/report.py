"""The doctor's findings together: a few lines for the node, a page in Markdown, and data for programs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .estimate import Beside, Device, Estimate, beside, estimate
from .files import ModelFile
from .settings import Finding
from .tasks import ALWAYS, TASKS, Part, Status, statuses

MARKS = {"error": "✗", "warning": "!", "note": "·"}


@dataclass(frozen=True)
class Report:
    """What was found."""

    size: tuple[int, int]
    """(width, height) of the picture that is estimated, in pixels."""
    device: Device
    files: tuple[ModelFile, ...]
    """FLUX.1's, and those that can't be read."""
    others: Counter[str]
    """{what: files} of other models."""
    tasks: tuple[Status, ...]
    findings: tuple[Finding, ...]
    """The worst first."""
    estimates: tuple[Estimate, ...]
    beside: Beside | None
    """None where text encoders or VAE are missing."""
    source: Callable[[str], str] = lambda file: ""
    """In words, where a file is to be had."""

    @property
    def missing(self) -> list[Part]:
        """Every part that a task lacks, once."""
        return list({each.part.file: each.part for status in self.tasks for each in status.missing}.values())

    @property
    def largest(self) -> int:
        """Bytes that the largest model takes while sampling; 0 without any."""
        return max((each.memory for each in self.estimates), default=0)

    def with_findings(self, findings: Iterable[Finding]) -> Report:
        """The same with what else was found, in its place."""
        return dataclasses.replace(self, findings=_worst_first([*self.findings, *findings]))

    def summary(self) -> str:
        """A line for each task, each finding but notes, and each model."""
        tasks = (f"{_mark(each)} {each.task.name}: {_files(each) or _lack(each)}" for each in self.tasks)
        findings = (f"{MARKS[each.level]} {_sentence(each)}" for each in self.findings if each.level != "note")
        return "\n".join([*tasks, *findings, *map(self._cost, self.estimates)])

    def page(self) -> str:
        """All of it in Markdown, whose tables are aligned for reading as they are."""
        return "\n\n".join(part for part in self._parts() if part) + "\n"

    def data(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        device = dataclasses.asdict(self.device) | {"dtype": _dtype(self.device)}
        return {
            "size": list(self.size),
            "device": device,
            "tasks": [
                {
                    "name": status.task.name,
                    "ready": status.ready,
                    "files": {role: f"{file.folder}/{file.name}" for role, file in status.files.items()},
                    "missing": [
                        {"file": each.part.file, "folder": each.part.folder, "unfit": list(each.unfit)}
                        for each in status.missing
                    ],
                }
                for status in self.tasks
            ],
            "findings": [finding._asdict() for finding in self.findings],
            "files": [
                {
                    "folder": file.folder,
                    "name": file.name,
                    "bytes": file.bytes,
                    "what": file.what,
                    "role": file.role,
                    "usable": file.usable,
                    "problem": str(file.problem) if file.problem else "",
                }
                for file in self.files
            ],
            "others": dict(self.others),
            "estimates": [
                dataclasses.asdict(each) | {"memory": each.memory, "seconds": each.seconds} for each in self.estimates
            ],
            "beside": dataclasses.asdict(self.beside) if self.beside else None,
        }

    def _parts(self) -> Iterator[str]:
        ready = sum(status.ready for status in self.tasks)
        yield f"# FLUX.1 Doctor: {ready} of {len(self.tasks)} tasks can be run"
        yield _table(
            ("", "task", "with, or what it lacks"),
            ((_mark(status), status.task.name, _files(status) or _lack(status)) for status in self.tasks),
        )
        if self.missing:
            yield "## To get"
            yield _table(("file", "into", "what it is"), map(self._to_get, self.missing))
        yield "## What to look at"
        yield "\n".join(f"- {each.level.upper()}: {_sentence(each)}" for each in self.findings) or "Nothing is wrong."
        yield "## Files"
        rows = ((f"{file.folder}/{file.name}", _bytes(file.bytes), file.what) for file in self.files)
        yield _table(("file", "size", "what it is"), rows) if self.files else "No file of FLUX.1's."
        if self.others:
            yield "Not for these nodes: " + ", ".join(f"{n} x {what}" for what, n in self.others.most_common()) + "."
        if self.estimates:
            yield from self._costs()

    def _to_get(self, part: Part) -> tuple[str, str, str]:
        return part.file, f"models/{part.folder}", part.words + self.source(part.file)

    def _costs(self) -> Iterator[str]:
        device = self.device
        has = f" with {_bytes(device.memory)}" if device.memory else ""
        yield f"## What a picture of {self.size[0]} x {self.size[1]} takes (estimated)"
        yield (
            f"On {device.name}{has}, computing in {_dtype(device)}. A matrix product there ran at "
            f"{device.flops / 1e12:.3g} TFLOP/s just now; times are a step's FLOPs at that speed, and often longer in truth."
        )
        yield _table(
            ("model", "memory while sampling", "of it weights", "before the first step", "a step", "a picture"),
            (
                (
                    each.file + (" with 1 reference" if each.references else ""),
                    _bytes(each.memory),
                    _bytes(each.weights),
                    _bytes(each.modulation),
                    _seconds(each.step_seconds),
                    f"{_seconds(each.seconds)} ({each.steps} steps)",
                )
                for each in self.estimates
            ),
        )
        if self.beside:
            yield (
                f"Before it the text encoders take {_bytes(self.beside.text_encoders)}, after it the VAE "
                f"{_bytes(self.beside.vae)} and {_bytes(self.beside.decoding)} to decode in one piece; "
                "none of them at the same time as the model."
            )

    def _cost(self, each: Estimate) -> str:
        return (
            f"≈ {each.file} at {self.size[0]} x {self.size[1]}: {_bytes(each.memory)}, "
            f"{_seconds(each.seconds)} for {each.steps} steps"
        )


def examine(
    files: Iterable[ModelFile],
    size: tuple[int, int],
    device: Device,
    source: Callable[[str], str] = lambda file: "",
) -> Report:
    """Everything about these files, and a picture of `size` (width, height) in pixels.

    `source` says in words where a missing file is to be had, " from https://..." or the like.
    """
    files = list(files)
    ours = tuple(file for file in files if file.role or file.problem)
    tasks = tuple(statuses(ours))
    models = [file for file in ours if file.usable and any(file.role in task.variants for task in TASKS)]
    estimates = tuple(estimate(file, size, device) for file in models)
    found = [*_of_files(ours), *_of_unfit(tasks), *_of_memory(estimates, device)]
    parts = next((s.files for s in tasks if set(ALWAYS) <= s.files.keys()), None)
    return Report(
        size, device, ours,
        Counter(file.what.split(",")[0] for file in files if file not in ours),
        tasks, _worst_first(found), estimates,
        beside(*(parts[role] for role in ALWAYS), size, device) if parts else None, source,
    )  # fmt: skip


def _worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda each: list(MARKS).index(each.level)))


def _of_files(files: Sequence[ModelFile]) -> Iterator[Finding]:
    for file in files:
        where = f"{file.folder}/{file.name}"
        if file.problem:
            error = file.problem
            yield Finding(
                "error", f"{where}: {error.problem}. Expected: {error.expected}. Found: {error.found}", error.fix
            )
        elif file.belongs_in:
            yield Finding(
                "warning", f"{where} is a {file.what.split(',')[0]}: no loader finds it there",
                f"move it to models/{file.belongs_in}",
            )  # fmt: skip
        elif file.folder == "checkpoints":
            yield Finding("note", f"{where} holds all that it needs", "load it with ComfyUI's Load Checkpoint")


def _of_unfit(tasks: Sequence[Status]) -> Iterator[Finding]:
    """Files of the right kind that don't go with the model."""
    unfit = {text: each.part for status in tasks for each in status.missing for text in each.unfit}
    for text, part in unfit.items():
        yield Finding("warning", text, f"use files of one family: {part.file} goes with the released models")


def _of_memory(estimates: Sequence[Estimate], device: Device) -> Iterator[Finding]:
    for each in estimates:
        if device.memory and each.memory > device.memory:
            yield Finding(
                "warning",
                f"{each.file} takes {_bytes(each.memory)} while sampling, {device.name} has {_bytes(device.memory)}: "
                "weights are moved in and out at every step",
                "take an fp8 file, or a smaller picture",
            )


def _mark(status: Status) -> str:
    return "✓" if status.ready else MARKS["error"]


def _files(status: Status) -> str:
    """What a task that is ready is run with, beside text encoders and VAE; empty where it is not."""
    return ", ".join(file.name for role, file in status.files.items() if status.ready and role not in ALWAYS)


def _lack(status: Status) -> str:
    return "lacks " + ", ".join(each.part.words for each in status.missing)


def _sentence(finding: Finding) -> str:
    return finding.text.rstrip(".") + "." + (f" Fix: {finding.fix.rstrip('.')}." if finding.fix else "")


def _dtype(device: Device) -> str:
    return str(device.dtype).removeprefix("torch.")


def _bytes(count: int) -> str:
    """23802932000 as "23.8 GB", as download pages count."""
    power, unit = next(((p, unit) for p, unit in ((9, "GB"), (6, "MB")) if count >= 10**p), (3, "kB"))
    return f"{count / 10**power:.{1 if power == 9 else 0}f} {unit}"


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return "under 0.01 s"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown whose columns are as wide as their widest cell."""
    cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
