"""Folders that are made once and then reused, below a `.cache` that git ignores."""

import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """`target`, made by `make(new folder)` when missing.

    The new folder is moved into place whole, so an interrupted attempt leaves nothing half made and two at once do
    no harm: the slower one's work is dropped.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="making-") as work:
        new = Path(work) / target.name
        make(new)
        try:
            new.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target
