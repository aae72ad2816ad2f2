"""A digit of the visitor's own goes along: over all pages, a reload, and with a copied link."""

import re

from playwright.sync_api import Page, expect

from tests.browser.driver import assert_clean, screenshot, settled

APP = "app.py"


def draw(page: Page) -> None:
    page.get_by_role("button", name="Clear the drawing").click()
    expect(page.get_by_text("Draw one digit with the mouse")).to_be_visible()
    settled(page)
    box = page.locator(".st-key-canvas .paper canvas").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=8)
    page.mouse.up()
    expect(page.get_by_text("Draw one digit with the mouse")).not_to_be_attached()
    settled(page)


def effective_samples(page: Page) -> list[str]:
    """Of A and B; the other numbers change when chains have annealed."""
    return page.get_by_test_id("stMetricValue").all_inner_texts()[1::2]


def test_a_drawn_digit_goes_along_and_with_a_copied_link(visit):
    page = visit(APP)
    draw(page)
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar.get_by_text("Your drawing")).to_be_visible()
    link, numbers = page.url, effective_samples(page)
    assert re.search(r"x=28x28\.[\w-]{131}", link)
    sidebar.get_by_role("link", name="Latent space").click()
    expect(page.get_by_role("heading", name="Latent space", exact=True)).to_be_visible()
    settled(page)
    expect(sidebar.get_by_text("Your drawing")).to_be_visible()
    assert re.search(r"x=28x28\.[\w-]{131}", page.url)
    page.reload()
    settled(page)
    expect(page.get_by_test_id("stSidebar").get_by_text("From a link")).to_be_visible()
    screenshot(page, "latent-own-digit")
    assert_clean(page)
    other = visit(APP, link.split("/", 3)[3])
    expect(other.get_by_test_id("stSidebar").get_by_text("From a link")).to_be_visible()
    assert effective_samples(other) == numbers
    other.get_by_role("button", name="Remove").click()
    settled(other)
    expect(other.get_by_test_id("stSidebar").get_by_text("Test image 0 of")).to_be_visible()
    assert "x=" not in other.url
    assert_clean(other)


def test_the_dialog_takes_another_digit_in_hand(visit):
    page = visit(APP, "Reconstructions?recon_images=300")
    page.get_by_test_id("stSidebar").get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_role("spinbutton")
    field.fill("12")
    field.press("Enter")
    expect(dialog.get_by_text("Test image 12 of")).to_be_visible()
    screenshot(page, "dialog-digit")
    dialog.get_by_role("button", name="Use this digit").click()
    expect(dialog).to_have_count(0)
    settled(page)
    expect(page.get_by_test_id("stMain").get_by_text("Test image 12 of")).to_be_visible()
    assert "image=12" in page.url
    page.get_by_test_id("stSidebar").get_by_role("link", name="Bounds").click()
    expect(page.get_by_role("heading", name="Bounds", exact=True)).to_be_visible()
    settled(page)
    page.go_back()  # one step of the history for each page
    expect(page.get_by_role("heading", name="Reconstructions", exact=True)).to_be_visible()
    settled(page)
    expect(page.get_by_test_id("stSidebar").get_by_text("Test image 12 of")).to_be_visible()
    assert_clean(page)


def test_the_tour_points_at_the_controls_and_stays_dismissed(visit):
    page = visit(APP)
    tour = page.get_by_role("region", name="A tour in three steps")
    for step, target in ((1, ".st-key-canvas"), (2, ".st-key-a"), (3, ".st-key-claims")):
        expect(tour).to_contain_text(f"{step} of 3")
        expect(page.locator(target).first).to_have_css("outline-style", "solid")
        tour.get_by_role("button", name="Next" if step < 3 else "Done").press("Enter")
    expect(tour).not_to_be_visible()
    page.reload()
    settled(page)
    expect(page.get_by_role("heading", name="Latent-space explorer")).to_be_visible()
    expect(tour).not_to_be_visible()
    assert_clean(page)


def test_on_a_phone_the_tour_points_at_the_way_into_the_sidebar_and_then_at_the_models(visit):
    page = visit(APP, width=420)
    tour = page.get_by_role("region", name="A tour in three steps")
    tour.get_by_role("button", name="Next").click()
    way, models = page.get_by_role("button", name="Expand sidebar"), page.locator(".st-key-a")
    expect(way).to_have_css("outline-style", "solid")
    expect(models).not_to_have_css("outline-style", "solid")
    way.click()
    expect(models).to_have_css("outline-style", "solid")
    expect(models).to_be_in_viewport()
    page.get_by_role("button", name="Collapse sidebar").click()
    expect(way).to_have_css("outline-style", "solid")
    tour.get_by_role("button", name="Next").click()
    expect(page.locator(".st-key-claims")).to_have_css("outline-style", "solid")
    expect(way).not_to_have_css("outline-style", "solid")
    expect(tour.get_by_role("button", name="Done")).to_be_in_viewport(ratio=1)
    assert_clean(page)
