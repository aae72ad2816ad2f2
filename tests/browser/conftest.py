"""A real Streamlit server and a real Chromium for the tests in this folder."""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.driver import CHROMIUM_FLAGS, find_chromium, settled, watch
from tests.server import ROOT, Server

TIMEOUT_MS = 60_000  # a busy machine is slow, not broken
expect.set_options(timeout=TIMEOUT_MS)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """`server(app_file)`: that app (a path from the repository's root), started once a session."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(app_file: str) -> Server:
            running = Server(ROOT / app_file, tmp_path_factory.mktemp("server"))
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        reason = "no chromium found; on Debian: apt-get install chromium"
        if os.environ.get("IWAE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("chromium")
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, headless=True, args=CHROMIUM_FLAGS, env=environment
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, server: Callable[[str], Server]):
    """`visit(app_file, path="", width=1400, theme="light", **context_options)`: a fresh, settled visit.

    Afterwards the runs are gone that the test has left, as the next one's pages would show them.
    """
    contexts, servers = [], set()

    def open_page(app_file: str, path: str = "", *, width: int = 1400, theme: str = "light", **context_options) -> Page:
        servers.add(server(app_file))
        url = server(app_file).url
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=theme, **context_options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        watch(page, url)
        page.goto(f"{url}/{path}")
        settled(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for running in servers:
        running.forget_runs()
