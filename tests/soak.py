"""Mixed use by a seeded random walker in a real browser, with the memory of the server beside it.

    python -m tests.soak --minutes 30 --seed 0

Ends with exit status 1 at the first exception, console error or broken picture, and says the seed and the step. Caches
fill slowly, up to bounds of their own; what the server still holds when the walker has left is what it would never give
back.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from tests.browser.driver import CHROMIUM_FLAGS, find_chromium, settled, watch
from tests.browser.walker import Walk
from tests.load import forgotten
from tests.process import use
from tests.server import ROOT, Server

SPANS = 15  # of the walk, whose mean memory is printed


def soak(browser: Browser, server: Server, seconds: float, seed: int) -> tuple[Walk, np.ndarray]:
    """(the walk, memory as rows of seconds and bytes) of so many seconds; raises AssertionError as Walk.step."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    watch(page, server.url)
    page.goto(server.url)
    settled(page)
    walk, memory, started = Walk(page, server.url, server.home / "runs", seed), [], time.monotonic()
    while (now := time.monotonic() - started) < seconds:
        walk.step()
        memory.append((now, use(server.process.pid).resident))
    context.close()
    assert "Traceback" not in server.log.read_text(), f"seed {seed}: the pages look well, the server's log does not"
    return walk, np.array(memory)


def slope(memory: np.ndarray) -> tuple[float, float]:
    """(MB per minute, standard error) of the second half, by least squares on means of ten spans.

    What the server keeps for good is filled in the first half. The means make the errors of the fit nearly
    independent, which those of single looks are not.
    """
    late = memory[len(memory) // 2 :]
    x, y = np.array([span.mean(0) for span in np.array_split(late, 10)]).T * [[1 / 60], [1e-6]]
    fit, covariance = np.polyfit(x, y, 1, cov=True)
    return float(fit[0]), float(covariance[0, 0] ** 0.5)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    chromium = find_chromium()
    if chromium is None:
        print("no chromium found; on Debian: apt-get install chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as playwright:
        environment = os.environ | {"HOME": folder, "XDG_CACHE_HOME": folder, "XDG_CONFIG_HOME": folder}
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS, env=environment)
        server = Server(ROOT / "app.py", Path(folder) / "server")
        try:
            walk, memory = soak(browser, server, 60 * asked.minutes, asked.seed)
            with ThreadPoolExecutor(1) as apart:  # Playwright has a loop in this thread
                apart.submit(asyncio.run, forgotten(server)).result()
            after = use(server.process.pid)
        except AssertionError as error:
            print(error, server.log.read_text()[-4000:], sep="\n", file=sys.stderr)
            return 1
        finally:
            server.stop()
            browser.close()
    rise, error = slope(memory)
    megabytes = memory[:, 1] / 1e6
    print(f"seed {asked.seed}: {len(walk.steps)} steps in {asked.minutes:g} minutes, {walk.missed} of them missed")
    print(f"memory: {megabytes[0]:.0f} MB at first, {megabytes.max():.0f} at most, {megabytes[-1]:.0f} at last")
    spans = " ".join(f"{span.mean():.0f}" for span in np.array_split(megabytes, SPANS))
    print(f"in {SPANS} spans of the walk: {spans} MB; when the walker has left: {after}")
    print(f"slope in the second half: {rise:+.2f} ± {error:.2f} MB per minute; load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
