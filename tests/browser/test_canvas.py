"""The drawing surface in a real browser: what is drawn arrives in Python, in the right place, and stays."""

import json

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from pages.common.input import canvas
from tests.browser.driver import assert_clean, screenshot, settled

APP = "tests/browser/apps/canvas_app.py"
TOP, BOTTOM = ((0.2, 0.25), (0.8, 0.25)), ((0.2, 0.75), (0.8, 0.75))  # strokes: (x, y) as parts of the surface
TOP_ROWS, BOTTOM_ROWS = slice(5, 9), slice(19, 23)  # 0.25 · 28 = 7 and 0.75 · 28 = 21, ± 2 pixels


def surface(page: Page, name: str = "digit") -> Locator:
    return page.locator(f".st-key-{name} .paper canvas")


def points(page: Page, stroke, name: str = "digit") -> list[tuple[float, float]]:
    surface(page, name).scroll_into_view_if_needed()
    box = surface(page, name).bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def drag(page: Page, stroke, name: str = "digit") -> None:
    start, *rest = points(page, stroke, name)
    page.mouse.move(*start)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def touch_drag(page: Page, stroke) -> None:
    """A finger: Playwright has taps only, so the events go to Chromium directly."""
    (x0, y0), (x1, y1) = points(page, stroke)
    session = page.context.new_cdp_session(page)
    for i in range(5):
        at = {"x": x0 + (x1 - x0) * i / 4, "y": y0 + (y1 - y0) * i / 4}
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def received(page: Page, name: str = "digit") -> np.ndarray:
    """What Python holds, [28, 28]; zeros for None."""
    values = json.loads(page.locator(f".st-key-pixels-{name}").inner_text())
    return np.array(values or [0] * 784).reshape(28, 28)


def after(page: Page, action, name: str = "digit") -> np.ndarray:
    """What Python holds once `action` has changed it."""
    report = page.locator(f".st-key-pixels-{name}")
    before = report.inner_text()
    action()
    expect(report).not_to_have_text(before)
    return received(page, name)


def button(page: Page, name: str) -> Locator:
    return page.locator(".st-key-digit").get_by_role("button", name=name)


def shown(page: Page) -> np.ndarray:
    """The opacity on the screen's canvas, 280×280 in these tests, averaged to [28, 28]."""
    alpha = surface(page).evaluate(
        """canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, 280, 280);
            return Array.from({length: 280 * 280}, (_, i) => data[4 * i + 3]);
        }"""
    )
    return np.array(alpha).reshape(28, 10, 28, 10).mean(axis=(1, 3))


def test_a_stroke_arrives_where_it_was_drawn_and_can_be_undone(visit):
    page = visit(APP)
    expect(button(page, "Undo")).to_have_attribute("aria-disabled", "true")
    assert received(page).sum() == 0
    ink = after(page, lambda: drag(page, TOP))
    assert ink[TOP_ROWS].sum() == ink.sum() > 0
    columns = np.flatnonzero(ink.sum(0) > 127)  # the stroke runs from 0.2 · 28 = 5.6 to 0.8 · 28 = 22.4
    assert columns.min() in (4, 5) and columns.max() in (22, 23)
    width = ink[:, 10:18].sum(0) / 255
    assert np.allclose(width, width.mean(), atol=0.02)  # even along the stroke
    assert 2 < width.mean() < 3  # pixels; the median over MNIST's test digits is 2.4
    assert np.abs(shown(page) - ink).max() < 4  # the screen shows what Python holds

    two = after(page, lambda: drag(page, BOTTOM))
    assert two[BOTTOM_ROWS].sum() > 0 and np.array_equal(two[TOP_ROWS], ink[TOP_ROWS])
    assert np.array_equal(after(page, button(page, "Undo").click), ink)
    assert after(page, button(page, "Clear").click).sum() == 0
    assert shown(page).sum() == 0
    assert np.array_equal(after(page, button(page, "Undo").click), ink)
    assert_clean(page)


def test_clear_from_python_and_draw_the_same_again(visit):
    page = visit(APP)
    clear = page.get_by_role("button", name="Clear from Python")
    first = after(page, lambda: drag(page, TOP))
    assert after(page, clear.click).sum() == 0
    assert shown(page).sum() == 0
    page.get_by_role("button", name="Another widget").click()  # the old drawing must not come back
    settled(page)
    assert received(page).sum() == 0
    assert np.array_equal(after(page, lambda: drag(page, TOP)), first)
    assert_clean(page)


def test_the_drawing_survives_reruns_and_page_changes(visit):
    page = visit(APP)
    drawn = after(page, lambda: drag(page, TOP))
    page.get_by_role("button", name="Another widget").click()
    expect(page.get_by_text("another widget answered")).to_be_visible()
    assert np.array_equal(received(page), drawn)

    both = after(page, lambda: drag(page, BOTTOM))
    page.get_by_role("link", name="Elsewhere").click()
    expect(page.get_by_role("heading", name="Elsewhere")).to_be_visible()
    settled(page)
    page.get_by_role("link", name="Back to the canvas").click()
    expect(surface(page)).to_be_visible()
    settled(page)
    assert np.array_equal(received(page), both)
    assert np.abs(shown(page) - both).max() < 4
    assert np.array_equal(after(page, button(page, "Undo").click), drawn)  # strokes, not a flat picture
    assert_clean(page)


def test_strokes_in_quick_succession_are_all_kept(visit):
    page = visit(APP)
    heights = np.linspace(0.1, 0.9, 6)
    for height in heights:
        drag(page, ((0.2, height), (0.8, height)))
    page.wait_for_timeout(1000)  # the last one is sent 0.25 s after the pen was lifted
    settled(page)
    assert all(received(page)[int(28 * height)].sum() > 5 * 255 for height in heights)
    assert_clean(page)


def test_an_initial_picture_passes_through_unchanged(visit):
    page = visit(APP)
    ramp = np.repeat(np.arange(28) * 9, 28).reshape(28, 28)
    assert np.array_equal(received(page, "initial"), ramp)
    ink = after(page, lambda: drag(page, TOP, "initial"), "initial")
    assert np.array_equal(ink[10:], ramp[10:]) and (ink[TOP_ROWS] > ramp[TOP_ROWS]).any()
    assert_clean(page)


def test_keyboard_drawing(visit):
    page = visit(APP)
    surface(page).focus()
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    ink = after(page, lambda: page.keyboard.press("Space"))
    assert ink[12:16, 12:24].sum() == ink.sum() > 16 * 255  # eight pixels to the right of the centre, (14, 14)
    page.keyboard.press("Tab")
    expect(button(page, "Undo")).to_be_focused()
    assert after(page, lambda: page.keyboard.press("Enter")).sum() == 0
    page.keyboard.press("Tab")
    expect(button(page, "Clear")).to_be_focused()
    assert_clean(page)


def test_on_a_phone(visit):
    page = visit(APP, width=420, has_touch=True, device_scale_factor=2)
    ink = after(page, lambda: touch_drag(page, ((0.5, 0.8), (0.5, 0.2))))  # upwards, as one scrolls down
    assert ink[4:24, 12:16].sum() == ink.sum() > 32 * 255
    assert page.get_by_test_id("stMain").evaluate("main => main.scrollTop") == 0
    assert surface(page).evaluate("canvas => [canvas.clientWidth, canvas.width]") == [280, 560]  # crisp
    assert_clean(page)


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 420)])
def test_themes_and_widths(visit, theme, width):
    page = visit(APP, theme=theme, width=width)
    drag(page, ((0.25, 0.3), (0.7, 0.25), (0.45, 0.8)))
    expect(page.locator(".st-key-pixels-digit")).not_to_have_text("null")
    settled(page)
    ink, paper = surface(page).evaluate(
        """canvas => [getComputedStyle(canvas).color, getComputedStyle(canvas.parentElement).backgroundColor]
            .map(colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))"""
    )
    assert abs(ink - paper) > 3 * 128 and (ink < paper) == (theme == "light")
    box = surface(page).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"canvas-{theme}-{width}")
    assert_clean(page)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 27}, "27"),
        ({"initial": [0] * 783}, "783"),
        ({"initial": [256] + [0] * 783}, "256"),
        ({"initial": [0.5] + [0] * 783}, "0.5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        canvas.draw_digit("digit", **arguments)
