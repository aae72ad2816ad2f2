"""The page of results in a real browser: figures with both kinds of marks, and a row that opens its model."""

import re

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, screenshot, settled

HEAD, ROW = 36, 35  # CSS pixels of the table's lines, drawn on a canvas


def test_a_row_opens_its_model(visit):
    page = visit("app.py", "Results?results_section=Against+the+number+of+samples+k")
    charts = page.get_by_test_id("stMain").get_by_test_id("stPlotlyChart")  # the sidebar may show a run's own
    expect(charts.locator("svg.main-svg").first).to_be_visible()
    expect(charts).to_have_count(2)
    for name in ("VAE, measured", "IWAE, published"):  # plotly draws its legends after the page has settled
        expect(charts.first.locator(".legendtext", has_text=name).first).to_be_visible()
    page.get_by_role("tab", name="All models").click()
    table = page.locator(".st-key-results .dvn-scroller")  # lies over the canvas
    table.scroll_into_view_if_needed()
    table.click(position={"x": 15, "y": HEAD + ROW / 2})  # the box of the first row, the VAE
    settled(page)
    expect(page.get_by_text(re.compile("python -m iwae train .*--objective vae"))).to_be_visible()
    screenshot(page, "results-row")
    page.get_by_role("button", name="Show as B").click()
    settled(page)
    page.get_by_test_id("stMain").get_by_role("link", name=re.compile("See its posterior")).click()
    expect(page.get_by_role("heading", name=re.compile("B · VAE k = 1"))).to_be_visible()
    settled(page)
    assert_clean(page)


def test_a_claim_of_the_poster_leads_to_the_page_that_shows_why(visit):
    """By the keyboard, with the claim's own models."""
    page = visit("app.py", "Results?results_section=The+poster%2C+checked")
    main = page.get_by_test_id("stMain")
    expect(main.get_by_text("Weaker constraint on q", exact=True)).to_be_visible()
    main.get_by_role("link", name=re.compile("See what q misses")).press("Enter")
    expect(page.get_by_role("tab", name="What q misses", selected=True)).to_be_visible()
    for name, model in (("Model A", "VAE k = 50 · mnist-fixed"), ("Model B", "IWAE k = 50 · mnist-fixed")):
        expect(page.get_by_role("combobox", name=name)).to_have_value(re.compile(model))
    settled(page)
    assert_clean(page)
