"""The latent space in a real browser: clicks and lassos on the maps, and what they do elsewhere."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.driver import assert_clean, screenshot, settled

APP = "app.py"


def plot(page: Page, name: str):
    return page.locator(f".st-key-map-{name} .js-plotly-plot")


def drawn(page: Page) -> None:
    """Wait until both maps are on the screen."""
    settled(page)
    for name in "ab":
        expect(plot(page, name).locator(".nsewdrag").first).to_be_visible()


def box(page: Page, name: str) -> dict:
    area = plot(page, name).locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    return area.bounding_box()


def selected(page: Page, name: str) -> set[int]:
    """Numbers of the images that are selected on a map; none where all look the same."""
    return set(
        plot(page, name).evaluate(
            """plot => plot.data.filter(trace => trace.selectedpoints && trace.customdata)
                .flatMap(trace => Array.from(trace.selectedpoints, point => trace.customdata[point]))"""
        )
    )


def lasso(page: Page, name: str, corners) -> None:
    area = box(page, name)
    (x, y), *rest = [(area["x"] + u * area["width"], area["y"] + v * area["height"]) for u, v in corners]
    page.mouse.move(x, y)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def test_a_lasso_selects_the_same_images_on_the_other_map(visit):
    page = visit(APP, "Latent_space")
    drawn(page)
    assert not selected(page, "a")
    for name in "ab":
        page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 0)")
        lasso(page, name, [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.3, 0.6), (0.3, 0.3)])
        expect(page.get_by_text(re.compile(r"of [\d,]+ images selected"))).to_be_visible()
        drawn(page)
        chosen = selected(page, name)
        told = page.get_by_text(re.compile(r"of [\d,]+ images selected")).inner_text()
        count, total = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", told)[:2])
        assert 5 < len(chosen) == count < total and selected(page, "a") == selected(page, "b")
        screenshot(page, f"latent-lasso-{name}")
        page.get_by_role("button", name="Clear the selection").click()
        settled(page)
        assert not selected(page, "a") | selected(page, "b")
    assert_clean(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 768, 420])
def test_nothing_overflows(visit, width, theme):
    page = visit(APP, "Latent_space", width=width, theme=theme)
    expect(plot(page, "b").locator(".nsewdrag").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, f"latent-{theme}-{width}")
    assert_clean(page)
