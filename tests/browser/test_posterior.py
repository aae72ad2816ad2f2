"""The posterior of one digit in a real browser: its clouds, a hidden part, and the address that holds it."""

import re

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, download, settled, still

APP = "app.py"


def test_hiding_a_part_and_the_address(visit):
    page = visit(APP, "Posterior?posterior_section=Resampled+draws&samples=1000&image=3")
    main = page.get_by_test_id("stMain")
    for key in ("sir-A", "sir-B"):
        expect(main.locator(f".st-key-{key} svg.main-svg").first).to_be_visible()
    expect(main.get_by_text(re.compile("distinct draws among 1,000")).first).to_be_visible()
    still(page)
    main.get_by_text("In numbers").first.click()
    file = download(page, main.locator(".st-key-sir-A-csv button"))
    assert file.suggested_filename == "sir-A.csv"
    main.get_by_role("tab", name="Bound against k").click()
    expect(main.locator(".st-key-curve svg.main-svg").first).to_be_visible()
    main.get_by_role("tab", name="Hide a part").click()
    main.get_by_role("radio", name="a box").click()
    settled(page)
    slider = main.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("ArrowLeft")
    settled(page)
    assert "hidden=" in page.url and "hidden.rows=" in page.url
    expect(main.get_by_text("Without a box").first).to_be_visible()
    copied = page.url.split("/", 3)[3]
    other = visit(APP, copied)
    expect(other.get_by_test_id("stMain").get_by_role("slider").first).to_have_value("6")
    assert_clean(other)
    assert_clean(page)
