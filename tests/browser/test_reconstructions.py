"""The page of reconstructions in a real browser."""

import re

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, screenshot, settled, still


def test_errors_pages_and_one_image_s_posterior(visit):
    page = visit("app.py", "Reconstructions?recon_images=300")
    page.get_by_text("Error maps").click()
    settled(page)
    assert "errors=true" in page.url
    expect(page.get_by_text("Below each picture its error map")).to_be_visible()
    screenshot(page, "reconstructions")
    first = page.get_by_text(re.compile(r"^Image [\d,]+ ·")).first.inner_text()
    page.reload()
    settled(page)
    assert page.get_by_text(re.compile(r"^Image [\d,]+ ·")).first.inner_text() == first
    assert_clean(page)


def test_an_image_opens_whatever_the_address_holds(visit):
    page = visit("app.py", "Reconstructions?data=digits&class=3&recon_images=300&b=mnist-2d-iwae-k50")
    title = page.get_by_text(re.compile(r"^Image [\d,]+ · 3")).first.inner_text()
    still(page)
    page.locator("[class*='st-key-open-'] button").first.click()
    expect(page.get_by_role("heading", name="The posterior of one digit")).to_be_visible()
    settled(page)
    field = page.get_by_label(re.compile("^Test image of Digits"))
    expect(field).to_have_value(re.search(r"\d+", title)[0])
    expect(page.get_by_role("heading", name=re.compile("B · IWAE k = 50"))).to_be_visible()
    expect(page.get_by_text(re.compile("2.*, trained on mnist")).first).to_be_visible()
    assert_clean(page)
