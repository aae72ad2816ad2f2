"""No page is longer than two screens, in any of its sections, at three widths."""

import pytest
from playwright.sync_api import Page

from pages.frame.navigation import PAGES
from tests.browser.driver import assert_clean, settled

MOST = {1400: 2000, 1024: 2600, 420: 4000}  # CSS pixels by the width of the window


def heights(page: Page, where: str) -> list[str]:
    """Every width at which what is shown is too long, in words."""
    found = []
    for width, most in MOST.items():
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        if height > most:
            found.append(f"{where} is {height} px high at {width}; at most {most}")
    return found


@pytest.mark.slow  # two minutes
def test_every_section_of_every_page(visit):
    page = visit("app.py")
    too_long = heights(page, "Home")
    for _, title in PAGES[1:]:
        page.set_viewport_size({"width": 1400, "height": 900})
        page.get_by_test_id("stSidebar").get_by_role("link", name=title, exact=True).click()
        page.wait_for_url(f"**/{title.replace(' ', '_')}*")
        settled(page)
        tabs = page.get_by_test_id("stMain").get_by_role("tab")
        names = tabs.all_inner_texts()
        for name in names or [""]:
            page.set_viewport_size({"width": 1400, "height": 900})
            if name:
                tabs.get_by_text(name, exact=True).click()
                settled(page)
            too_long += heights(page, f"{title}, {name}")
    assert not too_long, "\n".join(too_long)
    assert_clean(page)
