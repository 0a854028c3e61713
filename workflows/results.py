"""Result files: which ones a finished workflow has, and how they get into a folder, whole or not at all."""

import os
from pathlib import Path
from typing import Any

from flux_core.errors import Flux1Error


def result_files(outputs: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The files that the workflow saved, in order; those it only shows when it saved none."""
    files = [
        each
        for output in outputs.values()
        for values in output.values()
        if isinstance(values, list)
        for each in values
        if isinstance(each, dict) and "filename" in each
    ]
    return [file for file in files if file.get("type") == "output"] or files


def names(job: str, files: list[dict[str, str]]) -> list[str]:
    """The job's name for its only file, or numbered ones."""
    numbers = [f"_{number}" for number in range(1, len(files) + 1)] if len(files) > 1 else [""]
    return [f"{job}{number}{Path(file['filename']).suffix}" for number, file in zip(numbers, files, strict=False)]


def write_whole(path: Path, content: bytes) -> None:
    """Writes under another name first, so that a file of this name is never a part; raises Flux1Error with the reason."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> Flux1Error:
    return Flux1Error(
        "This file can't be written", file=str(path), expected="room on the disk and the right to write",
        found=str(error), fix="correct that and run the same command again: what is done stays done",
    )  # fmt: skip
