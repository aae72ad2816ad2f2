"""Every page by axe-core's rules (WCAG 2.1, level AA): no serious violation, in light and in dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from pages.common.sidebar import PAGES
from tests.browser.driver import assert_clean, settled

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}
GRAVE = ("serious", "critical")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("file", [file for file, *_ in PAGES])
def test_no_serious_violation(visit, file, theme):
    path = "" if file == "app.py" else file.split("_", 1)[1].removesuffix(".py")
    page = visit("app.py", path, theme=theme)
    page.get_by_test_id("stSidebar").get_by_text("Train a small model").click()  # its form too
    settled(page)
    found = Axe().run(page, options=RULES).response["violations"]
    told = [
        f"{violation['impact']}: {node['failureSummary']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
    assert not told, "\n".join(told)
    assert_clean(page)
