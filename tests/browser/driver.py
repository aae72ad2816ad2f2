"""Drive a Streamlit app in a real browser: start it, wait for it, and say what went wrong on the page."""

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Download, Error, Locator, Page, WebSocket, expect
from playwright.sync_api import TimeoutError as TooLate
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Console errors that say nothing about the app, as patterns of "message (address)".
HARMLESS = [
    # A picture that a newer run has replaced before the browser had fetched it. `assert_clean` checks the pictures
    # that are on the page.
    r"Failed to load resource.*404.*/media/",
    r"Image source error.*/media/",
    # Opened at a page's own address, Streamlit looks for its server below that address first.
    r"Failed to load resource.*404.*/_stcore/(health|host-config)\)",
]


def find_chromium() -> str | None:
    debian = Path("/usr/bin/chromium")
    return str(debian) if debian.exists() else shutil.which("chromium")


def watch(page: Page, origin: str) -> None:
    """From now on, keep console errors, page errors and requests to other hosts for `assert_clean`, and for `settled`
    since when a click has waited for its run."""
    page.problems, page.asked = [], None
    page.on("websocket", lambda socket: _note_runs(page, socket))
    page.on("pageerror", lambda error: page.problems.append(f"page error: {error}"))
    page.on("crash", lambda _: page.problems.append("the page crashed"))

    def console(message) -> None:
        text = f"{message.text} ({message.location.get('url')})"
        if message.type == "error" and not any(re.search(pattern, text) for pattern in HARMLESS):
            page.problems.append(f"console error: {text}")

    def request(request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(origin).netloc:
            page.problems.append(f"request to another host: {request.url}")

    page.on("console", console)
    page.on("request", request)


def _note_runs(page: Page, socket: WebSocket) -> None:
    """Keep `page.asked`, since when a run of the whole page has been asked for, until one has finished; runs of
    fragments, many of which come by the clock, are neither."""

    def sent(content: bytes) -> None:
        message = BackMsg.FromString(content)
        if message.HasField("rerun_script") and not message.rerun_script.fragment_id:
            page.asked = time.monotonic()

    def received(content: bytes) -> None:
        message = ForwardMsg.FromString(content)
        if message.HasField("script_finished") and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
            page.asked = None

    socket.on("framesent", sent)
    socket.on("framereceived", received)


def settled(page: Page, seconds: float = 60) -> None:
    """Wait until the app has been idle for 0.3 s: connected, what was clicked run (or for 10 s not; if `watch` looks
    at the page), no script running, nothing on the page stale."""
    while (asked := getattr(page, "asked", None)) and time.monotonic() < asked + 10:
        page.wait_for_timeout(20)  # in which events are noted
    page.wait_for_function(
        """() => {
            const app = document.querySelector('[data-testid="stApp"]');
            const idle = app?.dataset.testConnectionState === "CONNECTED"
                && app.dataset.testScriptState === "notRunning"
                && !document.querySelector('[data-stale="true"], [data-testid="stSkeleton"]');
            if (!idle) window.idleSince = undefined;
            else window.idleSince ??= performance.now();
            return idle && performance.now() - window.idleSince > 300;
        }""",
        timeout=1000 * seconds,
        polling=50,
    )
    page.evaluate("window.idleSince = undefined")


def still(page: Page) -> None:
    """Wait until figures are drawn, expanders open, and nothing moves any more: a click on what moves is lost."""
    charts = page.get_by_test_id("stMain").get_by_test_id("stPlotlyChart")
    for place in range(charts.count()):
        expect(charts.nth(place).locator("svg.main-svg").first).to_be_visible()
    page.wait_for_function(
        """() => {
            const boxes = document.querySelectorAll('[data-testid="stMain"], [data-testid="stSidebarContent"]');
            const height = [...boxes].map(box => box.scrollHeight).join(), now = performance.now();
            if (window.held?.height !== height) window.held = {height, since: now};
            return now - window.held.since > 1000;
        }""",
        polling=50,
    )
    settled(page)


def pick(page: Page, box: Locator, option: Locator) -> None:
    """Open a select box and take an option. A run of the page that comes in between closes it: then once more."""
    for _ in range(5):
        still(page)
        box.press("ArrowDown")
        try:
            return option.click(timeout=5000)
        except Error:
            page.keyboard.press("Escape")
    raise AssertionError(f"{box} did not offer {option}")


def download(page: Page, button: Locator) -> Download:
    """The file behind a button, whole. A run of the page that comes in between forgets what was asked for, or drops
    the file before it is fetched: then once more."""
    for _ in range(3):
        still(page)
        with contextlib.suppress(TooLate), page.expect_download(timeout=20_000) as waiting:
            button.click()
            if not waiting.value.failure():
                return waiting.value
    raise AssertionError(f"no file came from {button}; the page says: {page.get_by_test_id('stMain').inner_text()}")


def assert_clean(page: Page) -> None:
    """No exception and no broken picture on the page, no error in the console, no request to another host."""
    shown = page.get_by_test_id("stException").all_inner_texts()
    assert not shown, f"exceptions on the page: {shown}"
    broken = page.locator("img").evaluate_all(
        "all => all.filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
    )
    assert not broken, f"broken pictures on the page: {broken}"
    assert not page.problems, "\n".join(page.problems)


def screenshot(page: Page, name: str) -> None:
    """The whole page as `name`.png in $IWAE_SCREENSHOTS; nothing where that is not set."""
    if folder := os.environ.get("IWAE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        window = page.viewport_size
        # Streamlit scrolls inside the window, so the window has to be as high as the page.
        height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        page.set_viewport_size(window | {"height": max(height, window["height"])})
        settled(page)
        page.screenshot(path=Path(folder) / f"{name}.png")
        page.set_viewport_size(window)
