"""A progress bar over one or more running workflows, with room for lines above it."""

import sys
from types import TracebackType

from tqdm import tqdm

FORM = "{desc:<40.40} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"


class Progress:
    """`total` counts workflows; a running one counts as far as it has come. Not drawn when `hidden`.

    `hidden=None` draws where somebody looks and not into a file.
    """

    def __init__(self, total: int, hidden: bool | None = None):
        self.bar = tqdm(total=total, bar_format=FORM, disable=hidden)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def at(self, done: float, what: str) -> None:
        self.bar.set_description_str(what, refresh=False)
        self.bar.n = done
        self.bar.refresh()


def say(text: str) -> None:
    """A line on standard output, above the bar if there is one; in a file at once, for whoever follows it."""
    tqdm.write(text)
    sys.stdout.flush()
