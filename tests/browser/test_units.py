"""The page of active units in a real browser."""

import re

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, download, pick, screenshot, settled, still


def test_threshold_and_unit(visit):
    page = visit("app.py", "Active_units")
    charts = page.get_by_test_id("stMain").get_by_test_id("stPlotlyChart")
    expect(charts).to_have_count(2)
    expect(charts.first.locator(".legendtext").first).to_be_visible()
    before = page.get_by_test_id("stMetricValue").first.inner_text()
    slider = page.get_by_role("slider", name="Threshold")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    settled(page)
    after = page.get_by_test_id("stMetricValue").first.inner_text()
    assert int(after.split()[0]) < int(before.split()[0]) and "threshold=1" in page.url
    page.reload()
    settled(page)
    assert page.get_by_test_id("stMetricValue").first.inner_text() == after
    still(page)
    page.get_by_text("In numbers").first.click()
    file = download(page, page.get_by_test_id("stDownloadButton").first.get_by_role("button"))
    assert file.path().read_text().splitlines()[0] == "model,unit,Variance over images of E_q[h_u|x]"
    page.get_by_role("tab", name="One unit at a time").click()
    expect(charts).to_have_count(0)
    settled(page)
    box = page.get_by_role("combobox", name=re.compile("Switch this unit off")).first
    pick(page, box, page.get_by_role("option").nth(3))
    settled(page)
    screenshot(page, "units")
    assert_clean(page)


def test_two_dimensions_in_the_dark_and_narrow(visit):
    page = visit("app.py", "Active_units?a=mnist-2d-vae-k1&b=mnist-2d-iwae-k50", width=420, theme="dark")
    expect(page.get_by_test_id("stMetricValue").first).to_have_text("2 of 2")
    settled(page)
    screenshot(page, "units-420-dark")
    assert_clean(page)
