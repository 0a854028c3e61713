"""python -m flux_core.doctor MODELS_FOLDER: the doctor without ComfyUI."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from .estimate import device_here
from .files import files_below
from .report import examine

MAX_SIDE = 16384


def main(arguments: list[str] | None = None) -> int:
    """Prints the report; 0 where text to image can be run, else 1."""
    parser = argparse.ArgumentParser(prog="python -m flux_core.doctor", description=__doc__)
    parser.add_argument("models", type=folder, help="ComfyUI's models folder")
    parser.add_argument("--size", type=size, default=(1024, 1024), help="of the picture to estimate, 1024x1024")
    parser.add_argument("--json", action="store_true", help="print data for programs")
    given = parser.parse_args(arguments)
    report = examine(files_below(given.models), given.size, device_here())
    print(json.dumps(report.data(), indent=2) if given.json else report.page())
    return 0 if report.tasks[0].ready else 1


def folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


def size(text: str) -> tuple[int, int]:
    """(width, height) of "1024x768"."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = tuple(map(int, match.groups())) if match else (0, 0)
    if not all(16 <= side <= MAX_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text} is no size: expected WIDTHxHEIGHT from 16 to {MAX_SIDE}, such as 1024x768"
        )
    return sides


if __name__ == "__main__":
    raise SystemExit(main())
