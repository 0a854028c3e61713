"""ComfyUI's real graph editor in a browser without a window: opens workflows, edits and runs them, tells what they mean.

python -m tests.browser.editor FILE [ui]     prints a workflow file's API form, or its UI form, as the editor does
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

from painter.family import write_random_family
from workflows.cache import CACHE, made_once
from workflows.comfyui import find_comfyui
from workflows.server import NAME, PACK, quiet_editor, serve

READY = "window.app?.extensionManager && window.app.graph && !document.querySelector('#splash-loader')"
SCREEN = {"width": 2560, "height": 1440}
FILES = sorted((PACK / "workflows").glob("*.json"))
SCREENSHOTS = Path(__file__).parent / "screenshots"  # git ignores it
OVERLAY = "[data-testid=error-overlay]"

# A run's end and every node's UI output, as the server tells the editor.
WATCH = """() => {
  window.run = {ended: '', outputs: {}};
  const on = (event, note) => app.api.addEventListener(event, ({detail}) => note(detail));
  on('execution_start', () => { window.run = {ended: '', outputs: {}}; });
  on('executed', ({node, output}) => { window.run.outputs[node] = output; });
  on('execution_success', () => { window.run.ended = 'well'; });
  on('execution_error', ({exception_message}) => { window.run.ended = exception_message; });
}"""

# Everything in view, `share` of the screen wide or high.
FIT = """share => {
  const things = [...app.graph.nodes, ...app.graph.groups].map(({boundingRect: [x, y, w, h]}) => [x, y, x + w, y + h]);
  const [left, top] = [0, 1].map(i => Math.min(...things.map(thing => thing[i])));
  const [right, bottom] = [2, 3].map(i => Math.max(...things.map(thing => thing[i])));
  app.canvas.ds.fitToBounds([left, top, right - left, bottom - top], {zoom: share});
  app.canvas.setDirty(true, true);
}"""

# Where a node's socket is on the screen.
SOCKET = """([id, name, isInput]) => {
  const node = app.graph.getNodeById(id), slots = isInput ? node.inputs : node.outputs;
  const slot = slots.findIndex(slot => slot.name === name);
  const [x, y] = isInput ? node.getInputPos(slot) : node.getOutputPos(slot);
  return app.canvasPosToClientPos([x, y]);
}"""


class Editor:
    """One page with the graph editor; `page` is playwright's, for whatever is not here."""

    def __init__(self, page: Page, address: str):
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.wait_for_function(READY, timeout=120_000)
        page.evaluate(WATCH)

    def command(self, name: str) -> None:
        """One of the editor's own commands, as its menus and keys give them."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def blank(self) -> None:
        """An empty workflow in a tab of its own."""
        with self.another_workflow():
            self.command("Comfy.NewBlankWorkflow")

    def open(self, file: Path) -> None:
        """Loads a workflow file, in UI or API form, as if the user had chosen it."""
        with self.another_workflow():
            self.page.set_input_files("#comfy-file-input", file)

    def open_template(self, name: str) -> None:
        """Opens a bundled workflow from the gallery, Browse Templates, where the pack has a category of its own."""
        with self.another_workflow():
            self.command("Comfy.BrowseTemplates")
            gallery = self.page.get_by_role("dialog")
            gallery.locator("nav").get_by_text(NAME, exact=True).click()
            gallery.get_by_test_id(f"template-workflow-{name}").click()

    @contextmanager
    def another_workflow(self) -> Iterator[None]:
        """Whatever opens a workflow: waits until it is there."""
        self.errors.clear()
        current = "app.extensionManager.workflow.activeWorkflow?.path"
        before = self.page.evaluate(current)
        yield
        self.page.wait_for_function(f"before => {current} !== before", arg=before, timeout=30_000)

    def place(self, words: str, title: str, at: tuple[float, float]) -> str:
        """Searches for `words`, takes the node called `title` from what is found, puts it there and returns its id."""
        canvas, place = self.page.locator("#graph-canvas"), {"x": at[0], "y": at[1]}
        self.command("Workspace.SearchBox.Toggle")  # a busy page takes a double click for two
        self.page.get_by_role("search").get_by_role("combobox").fill(words)
        self.page.get_by_role("option").filter(has=self.page.get_by_text(title, exact=True)).click()
        self.page.wait_for_function("app.canvas.state.ghostNodeId != null")  # it hangs on the mouse until a click
        canvas.click(position=place)
        self.page.wait_for_function("app.canvas.state.ghostNodeId == null")
        return str(self.page.evaluate("app.graph.nodes.at(-1).id"))

    def connect(self, source: str, output: str, target: str, input: str) -> None:
        """Drags a wire from one node's output to another one's input."""
        self.page.mouse.move(*self.page.evaluate(SOCKET, [source, output, False]))
        self.page.mouse.down()
        self.page.mouse.move(*self.page.evaluate(SOCKET, [target, input, True]), steps=8)
        self.page.mouse.up()

    def complaint(self) -> str:
        """The editor's overlay about missing nodes, models or pictures or a failed run, else nothing."""
        overlay = self.page.locator(OVERLAY)
        try:
            overlay.wait_for(timeout=2000)
        except TimeoutError:
            return ""
        return overlay.inner_text()

    def run(self) -> dict[str, dict[str, Any]]:
        """Presses Run and waits for the end; returns every node's UI output. Raises AssertionError when it fails."""
        self.page.evaluate("window.run.ended = ''")
        self.page.get_by_test_id("queue-button").first.click()
        ended = f"window.run.ended || document.querySelector('{OVERLAY}')?.innerText"
        self.page.wait_for_function(ended, timeout=120_000)
        assert self.page.evaluate(ended) == "well", self.page.evaluate(ended)
        return self.page.evaluate("window.run.outputs")

    def fit(self, share: float = 0.9) -> None:
        """Brings the whole graph into view."""
        self.page.evaluate(FIT, share)

    def screenshot(self, name: str) -> None:
        """The page as the user sees it, kept for looking at."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def to_api(self) -> dict[str, Any]:
        """The open workflow in API form, as Workflow > Export (API) writes it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def to_ui(self) -> dict[str, Any]:
        """The open workflow in UI form, as Workflow > Save writes it."""
        return json.loads(self.page.evaluate("JSON.stringify(app.graph.serialize())"))  # leaves undefined values out


def twin_of(file: Path) -> dict[str, Any]:
    """The API form that a bundled workflow is shipped with."""
    return json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))


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
    with browser.new_context(viewport=SCREEN) as context:
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
