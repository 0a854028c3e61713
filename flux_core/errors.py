"""One error class for everything the pack refuses, always with the way out in it."""


class Flux1Error(ValueError):
    """A refusal in the user's words: problem, file, expected, found, fix.

    The text is one line, `<problem>. File: <name>. Expected: <...>. Found: <...>. Fix: <...>.`, so that it
    reads the same in a node's error box, in `/prompt`'s answer and in a log.
    """

    def __init__(self, problem: str, *, expected: str, found: str, fix: str, file: str | None = None):
        self.problem, self.expected, self.found, self.fix, self.file = problem, expected, found, fix, file
        parts = [problem, f"File: {file}" if file else "", f"Expected: {expected}", f"Found: {found}", f"Fix: {fix}"]
        super().__init__(" ".join(part.rstrip(". ") + "." for part in parts if part))
