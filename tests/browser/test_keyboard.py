"""The app by keyboard alone: Tab, Enter, Space and the arrows, as for who has no mouse."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.driver import assert_clean, settled

APP = "app.py"
MOST_TABS = 150


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("target => target === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached by {MOST_TABS} Tabs")


def test_pick_another_image_and_another_way(visit):
    page = visit(APP, "Posterior?image=3")
    main = page.get_by_test_id("stMain")
    field = main.get_by_role("spinbutton").first
    tab_to(page, main.get_by_role("radio", name="Pick"))
    tab_to(page, field)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    settled(page)
    expect(field).to_have_value("4")
    assert "image=4" in page.url
    assert_clean(page)


def test_a_link_and_the_expander(visit):
    page = visit(APP, "Posterior?image=3")
    summary = page.get_by_test_id("stMain").locator("summary").first
    tab_to(page, summary)
    was = summary.evaluate("summary => summary.parentElement.open")
    page.keyboard.press("Enter")
    page.wait_for_function(  # closing is drawn in steps
        "([summary, was]) => summary.parentElement.open !== was", arg=[summary.element_handle(), was]
    )
    page.reload()
    settled(page)
    tab_to(page, page.get_by_test_id("stSidebar").get_by_role("link", name="Results"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/Results*")
    settled(page)
    assert_clean(page)


def test_a_slider(visit):
    page = visit(APP, "Bounds?bounds_section=Every+bound&image=3")
    slider = page.get_by_test_id("stMain").get_by_role("slider").first
    tab_to(page, slider)
    before = slider.input_value()
    page.keyboard.press("ArrowRight")
    settled(page)
    assert slider.input_value() != before and "power-mean.p=2.05" in page.url
    assert_clean(page)


def test_a_dialog_is_opened_left_and_answered(visit):
    page = visit(APP, "Training")
    main, dialog = page.get_by_test_id("stMain"), page.get_by_role("dialog")
    tab_to(page, main.get_by_role("button", name=re.compile("Train an IWAE")))
    page.keyboard.press("Enter")
    main.get_by_role("tab", name="One run").click()
    stop, delete = main.get_by_role("button", name="Stop", exact=True), main.get_by_role("button", name="Delete …")
    expect(stop).to_be_visible()
    stop.focus()
    page.keyboard.press("Enter")
    expect(main.get_by_role("button", name="Resume")).to_be_visible()
    settled(page)
    tab_to(page, delete)
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    tab_to(page, delete)
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")  # the keyboard is in it
    tab_to(page, dialog.get_by_role("button", name="Delete it"))
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(main.get_by_role("button", name=re.compile("Train an IWAE"))).to_be_visible()  # there is no run any more
    assert_clean(page)


def test_the_button_beside_the_number_shows_its_label(visit):
    page = visit(APP, "Posterior?image=3&samples=300", width=420)
    button = page.get_by_test_id("stMain").get_by_role("button", name="Random image")
    label = button.get_by_text("Random image", exact=True)
    cut = """label => {
        const text = document.createRange(), button = label.closest("button").getBoundingClientRect();
        text.selectNodeContents(label);
        return label.scrollWidth > label.clientWidth + 1 && label.clientWidth > 0
            || text.getBoundingClientRect().right > button.right;
    }"""
    for width in (420, 768):
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        assert not label.evaluate(cut)
    assert_clean(page)
