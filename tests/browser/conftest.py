"""The graph editor for the browser tests: one page for all of them, a tab for each workflow."""

import os
import shutil
from collections.abc import Generator, Iterator

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser

from tests.browser.editor import FILES, Editor, open_browser, open_editor, twin_of
from workflows.client import Client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Where there is none, the tests are skipped, but for those that CI runs."""
    if shutil.which("chromium") is None and not os.environ.get("CI"):
        pytest.skip("the graph editor's tests need chromium: apt install chromium, or your system's way")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def picture(server: Client) -> Image.Image:
    """A small picture with a hole, which the server has under every name that a bundled workflow asks for."""
    picture = Image.linear_gradient("L").resize((64, 48)).convert("RGBA")
    ImageDraw.Draw(picture).ellipse((16, 12, 40, 36), fill=(0, 0, 0, 0))
    nodes = [node for file in FILES for node in twin_of(file).values()]
    for name in {node["inputs"]["image"] for node in nodes if node["class_type"] == "LoadImage"}:
        server.upload(picture, name)
    return picture


@pytest.fixture(scope="session")
def editor(browser: Browser, server: Client, picture: Image.Image) -> Iterator[Editor]:
    """The running server's graph editor, with its own schema check on."""
    with open_editor(browser, server.address) as editor:
        editor.page.evaluate("app.extensionManager.setting.set('Comfy.Validation.Workflows', true)")
        yield editor


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps a picture of what went wrong."""
    report = yield
    if report.failed and "editor" in getattr(item, "funcargs", {}):
        item.funcargs["editor"].screenshot(f"failed_{item.name}".replace("/", "_"))
    return report
