"""Every page, light and dark, wide and narrow: nothing overflows, and in none of its sections does axe-core find a
serious violation."""

import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from pages.frame.navigation import PAGES
from tests.browser.driver import assert_clean, screenshot, settled

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # all that another theme changes
GRAVE = ("serious", "critical")
PLANES = "?a=mnist-2d-vae-k1&b=mnist-2d-iwae-k50&data=digits"
QUERIES = {  # what makes a page show the most
    "Posterior": "?samples=1000&hidden=left+half",
    "Reconstructions": "?recon_images=300&errors=true",
    "Samples": PLANES,
    "Bounds": PLANES,
}


def assert_accessible(page: Page, rules: dict = RULES) -> None:
    """No serious violation of WCAG 2.1, level AA."""
    found = Axe().run(page, options=rules).response["violations"]
    told = [
        f"{violation['impact']}: {node['failureSummary']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("file", [file for file, *_ in PAGES])
def test_every_page(visit, file):
    """One visit: the window is resized and the theme of the system changed while the page is open."""
    name = "" if file == "home.py" else file.split("_", 1)[1].removesuffix(".py")
    page = visit("app.py", name + QUERIES.get(name, ""))
    page.get_by_test_id("stSidebar").get_by_text("Train a small model").click()  # its form too
    settled(page)
    for section in page.get_by_test_id("stMain").get_by_role("tab").all()[::-1] or [None]:  # the first one is then open
        if section:
            section.click()
        for theme, rules in (("dark", COLOURS), ("light", RULES)):
            page.emulate_media(color_scheme=theme)
            settled(page)
            assert_accessible(page, rules)
    for theme, width in (("light", 1400), ("dark", 1400), ("dark", 768), ("dark", 420), ("light", 420)):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (theme, width)
        background = page.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor")
        assert (np.mean([int(part) for part in re.findall(r"\d+", background)[:3]]) > 128) == (theme == "light")
        screenshot(page, f"{name or 'home'}-{theme}-{width}")
    assert_clean(page)
