"""The page of reconstructions in a real browser."""

import re

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, screenshot, settled


def test_errors_pages_and_one_image_s_posterior(visit):
    page = visit("app.py", "Reconstructions?recon_images=300")
    expect(page.get_by_test_id("stPlotlyChart").first.locator("svg.main-svg").first).to_be_visible()
    page.get_by_text("Error maps").click()
    settled(page)
    assert "errors=true" in page.url
    expect(page.get_by_text("errors:").first).to_be_visible()
    screenshot(page, "reconstructions")
    first = page.get_by_text(re.compile(r"^Image [\d,]+ ·")).first.inner_text()
    page.reload()
    settled(page)
    assert page.get_by_text(re.compile(r"^Image [\d,]+ ·")).first.inner_text() == first
    page.get_by_role("button", name="Open").nth(1).click()  # the first is the select box's of the sidebar
    settled(page)
    assert_clean(page)


def test_narrow_and_dark(visit):
    page = visit("app.py", "Reconstructions?recon_images=300", width=420, theme="dark")
    screenshot(page, "reconstructions-420-dark")
    assert_clean(page)
