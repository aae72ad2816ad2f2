"""The pages of bounds and of samples in a real browser: sliders, downloads, the way back, and a copied address."""

import csv
import io
import re

from PIL import Image
from playwright.sync_api import Page, expect

from iwae.bounds import OBJECTIVES
from pages.frame.links import SETTLING
from tests.browser.driver import assert_clean, download, pick, screenshot, settled, still
from tests.browser.test_app import changed, tiles

EVERY = "bounds_section=Every+bound"
FLAT = "a=mnist-2d-vae-k1&b=mnist-2d-iwae-k50&data=digits"


def table(page: Page) -> list[str]:
    """The cells of the table of bounds."""
    return page.get_by_test_id("stMarkdownContainer").locator("td").all_inner_texts()


def slide(page: Page, label: str, key: str, times: int = 3) -> None:
    thumb = page.get_by_role("slider", name=re.compile(label))
    thumb.focus()
    for _ in range(times):
        page.keyboard.press(key)


def test_a_slider_moves_its_bound_and_the_address_holds_it(visit):
    page = visit("app.py", f"Bounds?{EVERY}&image=3&samples=1000&data=digits")
    before, after = table(page), changed(page, lambda: slide(page, "Power mean", "ArrowRight"), table)
    assert {i for i, cells in enumerate(zip(before, after, strict=True)) if len(set(cells)) > 1} == {6, 7, 8}
    assert "Power mean p = 2.15" in after and "power-mean.p=2.15" in page.url
    copied = page.url
    page.reload()
    settled(page)
    assert table(page) == after
    assert table(visit("app.py", copied.split("/", 3)[3])) == after
    page.get_by_test_id("stSidebar").get_by_role("link", name="Samples").click()
    expect(page.get_by_role("heading", name="Samples")).to_be_visible()
    settled(page)
    steps = page.evaluate("history.length")
    page.get_by_test_id("stSidebar").get_by_role("button", name="Random image").click()
    expect(page.get_by_test_id("stSidebar").get_by_text("Test image 3 of")).not_to_be_attached()
    settled(page)
    assert page.evaluate("history.length") == steps  # a page is one step, however often it changes
    page.wait_for_timeout(1000 * SETTLING)
    page.go_back()
    expect(page.get_by_role("heading", name="Bounds")).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_text("Test image 3 of")).to_be_visible()
    settled(page)
    assert page.url == copied and table(page) == after
    assert_clean(page)


def test_the_table_stands_beside_the_figure_or_below_it_where_there_is_no_room(visit):
    page = visit("app.py", f"Bounds?{EVERY}&samples=500&data=digits")
    for width in (1400, 1024):
        page.set_viewport_size({"width": width, "height": 900})
        still(page)
        cells = page.get_by_test_id("stMarkdownContainer").locator("table").bounding_box()
        figure = page.locator(".st-key-bounds-all").bounding_box()
        page_itself = page.get_by_role("tablist").bounding_box()
        assert cells["x"] + cells["width"] <= page_itself["x"] + page_itself["width"]
        assert min(cells["width"], figure["width"]) >= 360
        assert (cells["y"] > figure["y"] + figure["height"]) == (width == 1024)
    assert_clean(page)


def test_what_is_typed_into_a_number_field_is_used_or_refused(visit):
    """Each time the field holds the number that the page uses, or a sentence says which number is used instead."""
    page = visit("app.py", "Bounds?samples=500&data=digits")
    field = page.get_by_role("spinbutton", name="Samples per model")
    refusal = page.get_by_test_id("stAlert").filter(has_text="In use")

    def type_in(text: str) -> None:
        field.click()
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type(text)
        if not text:
            page.keyboard.press("Delete")
        page.keyboard.press("Enter")

    for text, held, said in (
        ("1e3", "1000", None),
        ("7", "7", "7 is out of range: choose a whole number from 100 to 50,000. In use: 1,000."),
        ("250.5", "250.5", "“250.5” is not a whole number: choose a whole number from 100 to 50,000. In use: 1,000."),
        ("2e99", "2e+99", "2e+99 is out of range: choose a whole number from 100 to 50,000. In use: 1,000."),
        ("", "5000", None),  # empty: the usual number
        ("abc", "5000", None),  # letters are not taken, so it stays empty
        ("300", "300", None),
    ):
        type_in(text)
        expect(field).to_have_value(held)
        expect(refusal).to_have_text([said] if said else [])
    assert "samples=300" in page.url
    screenshot(page, "number-field")
    assert_clean(page)


def test_the_numbers_of_a_figure_can_be_downloaded(visit):
    page = visit("app.py", f"Bounds?{EVERY}&samples=1000&data=digits")
    still(page)
    page.get_by_text("In numbers").click()
    still(page)
    file = download(page, page.locator(".st-key-bounds-all-csv").get_by_role("button"))
    assert file.suggested_filename == "bounds-all.csv"
    rows = list(csv.DictReader(io.StringIO(file.path().read_text())))
    assert len(rows) == 2 * len(OBJECTIVES) and {row["model"] for row in rows} == {"A", "B"}
    value, error = (float(rows[0][name]) for name in ("nats", "± s.e."))
    assert table(page)[1] == f"{value:.2f}\u00a0±\u00a0{error:.2f}".replace("-", "−")
    assert_clean(page)


def test_another_objective_shows_its_source_and_its_step(visit):
    page = visit("app.py", f"Bounds?{EVERY}&samples=1000&data=digits")
    expect(page.get_by_test_id("stCode")).to_contain_text("def iwae(log_w: Tensor)")
    pick(page, page.get_by_role("combobox", name="Bound"), page.get_by_role("option", name="Median"))
    expect(page.get_by_test_id("stCode")).to_contain_text("def median(log_w: Tensor)")
    page.get_by_role("tab", name="One step of training").click()
    expect(page.get_by_text("weighed by Median")).to_be_visible()  # the choice holds in both sections
    settled(page)
    before = tiles(page)
    pick(page, page.get_by_role("combobox", name="Bound"), page.get_by_role("option", name="IWAE", exact=True))
    expect(page.get_by_text("weighed by IWAE")).to_be_visible()
    settled(page)
    assert tiles(page) != before
    assert_clean(page)


def test_the_exact_posterior_is_drawn(visit):
    page = visit("app.py", f"Bounds?bounds_section=The+exact+posterior&{FLAT}&image=11")
    charts = page.get_by_test_id("stMain").get_by_test_id("stPlotlyChart")
    expect(charts).to_have_count(2)
    expect(charts.nth(0).get_by_text("exact posterior p(h|x)")).to_be_visible()
    expect(page.get_by_text("q's draws miss where the posterior is")).to_be_visible()
    assert_clean(page)


def test_samples_can_be_drawn_anew_and_downloaded(visit):
    page = visit("app.py", f"Samples?{FLAT}&count=20")
    seed = page.get_by_test_id("stMain").get_by_label("Seed", exact=True)

    def other() -> None:
        seed.fill("7")
        seed.press("Enter")

    changed(page, other, tiles)
    assert "seed=7" in page.url
    page.get_by_role("tab", name="The plane").click()
    file = download(page, page.locator(".st-key-samples-plane-A-png").get_by_role("button"))
    with Image.open(file.path()) as picture:
        assert (picture.format, picture.size) == ("PNG", (20 * 56, 20 * 56))
    assert_clean(page)


def test_a_model_with_a_plane_is_one_click_away(visit):
    page = visit("app.py", "Samples?samples_section=The+plane+of+two+units&data=digits")
    page.get_by_role("button", name="Show IWAE k = 50 with 2 units as B").click()
    settled(page)
    expect(page.get_by_text("The top layer of model B")).to_have_count(0)
    assert "b=mnist-2d-iwae-k50" in page.url
    assert_clean(page)
