"""ComfyUI's real graph editor in a browser without a window: opens workflow files and tells what they mean.

python -m tests.browser.editor FILE [ui]     prints a workflow file's API form, or its UI form, as the editor does
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from painter.family import write_random_family
from workflows.cache import CACHE, made_once
from workflows.comfyui import find_comfyui
from workflows.server import quiet_editor, serve

READY = "window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader')"


class Editor:
    """One page with the graph editor; `page` is playwright's, for whatever is not here."""

    def __init__(self, page: Page, address: str):
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.wait_for_function(READY, timeout=120_000)

    def open(self, file: Path) -> None:
        """Loads a workflow file, in UI or API form, as if the user had chosen it."""
        # The graph is emptied first, so that the file's own nodes tell when it is loaded.
        self.page.evaluate("app.graph.clear()")
        self.page.set_input_files("#comfy-file-input", file)
        self.page.wait_for_function("app.graph.nodes.length > 0", timeout=30_000)

    def complaint(self) -> str:
        """The editor's overlay about missing nodes, models or pictures or a failed run, else nothing."""
        self.page.wait_for_timeout(2000)
        overlay = self.page.locator("[data-testid=error-overlay]")
        return overlay.inner_text() if overlay.count() else ""

    def to_api(self) -> dict[str, Any]:
        """The open workflow in API form, as Workflow > Export (API) writes it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def to_ui(self) -> dict[str, Any]:
        """The open workflow in UI form, as Workflow > Save writes it."""
        return self.page.evaluate("app.graph.serialize()")


def without_meta(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph without its nodes' titles, which may be translated."""
    return {key: {name: part for name, part in node.items() if name != "_meta"} for key, node in graph.items()}


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium without a window."""
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments) as browser,
    ):
        yield browser


@contextmanager
def open_editor(browser: Browser, address: str) -> Iterator[Editor]:
    """The graph editor of the server at `address`, with a fresh memory."""
    with browser.new_context(viewport={"width": 1600, "height": 1000}) as context:
        yield Editor(context.new_page(), address)


def main() -> None:
    file, form = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "api"
    models = made_once(CACHE / "demo" / "models", write_random_family)
    with (
        serve(models, comfyui=find_comfyui(), settings=quiet_editor()) as server,
        open_browser() as browser,
        open_editor(browser, server.address) as editor,
    ):
        editor.open(file)
        json.dump(editor.to_ui() if form == "ui" else editor.to_api(), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
