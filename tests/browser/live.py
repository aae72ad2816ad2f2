"""Pictures that a page computes itself: what they show, and how soon."""

import numpy as np
from playwright.sync_api import Locator, Page

# Notes when the pictures were painted, and how long before that the first event came that they did not show yet.
WATCH = """
    window.frames = [];
    let pending = null, last = null;
    addEventListener("pointermove", (event) => (pending ??= event.timeStamp), { capture: true });
    const put = CanvasRenderingContext2D.prototype.putImageData;
    CanvasRenderingContext2D.prototype.putImageData = function (...given) {
        put.apply(this, given);
        if (!this.canvas.closest(".live, .live-map") || pending === null) return;
        if (last === null) queueMicrotask(() => {
            frames.push({ at: last, latency: last - pending });
            pending = last = null;
        });
        last = performance.now();
    };
"""


def levels(canvas: Locator) -> np.ndarray:
    """Grey levels of one picture or a row of them, [28, width]."""
    found, width = canvas.evaluate(
        """canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, 28);
            return [Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]), canvas.width];
        }"""
    )
    return np.array(found).reshape(28, width)


def fetched(page: Page, count: int) -> None:
    """Wait until the page has the weights of so many models."""
    page.wait_for_function(
        """count => performance.getEntriesByType("resource")
            .filter(({ name, responseEnd }) => /media.*\\.bin$/.test(name) && responseEnd > 0).length >= count""",
        arg=count,
    )
    page.wait_for_timeout(300)  # and has read them
