"""The graph editor for the browser tests."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.editor import Editor, open_browser, open_editor
from workflows.client import Client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Where there is none, the tests are skipped, but for those that CI runs."""
    if shutil.which("chromium") is None and not os.environ.get("CI"):
        pytest.skip("the graph editor's tests need chromium: apt install chromium, or your system's way")
    with open_browser() as browser:
        yield browser


@pytest.fixture
def editor(browser: Browser, server: Client) -> Iterator[Editor]:
    """The running server's graph editor, freshly opened."""
    with open_editor(browser, server.address) as editor:
        yield editor
