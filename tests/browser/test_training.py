"""The page of training in a real browser: a run that is stopped, resumed, shown in its timeline and deleted."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.driver import assert_clean, download, screenshot, settled, still

APP = "app.py"


def test_a_run_from_its_start_to_its_end(visit):
    page = visit(APP, "Training")
    main = page.get_by_test_id("stMain")
    begin = main.get_by_role("button", name=re.compile("Train an IWAE"))
    screenshot(page, "training-empty")
    begin.click()
    curve = main.locator(".st-key-training-bound svg.main-svg").first
    expect(curve).to_be_visible(timeout=240_000)  # it follows the run by itself
    main.get_by_role("tab", name="One run").click()
    stop = main.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_visible()
    expect(main.get_by_role("button", name="Delete …")).to_be_disabled()
    stop.click()
    resume = main.get_by_role("button", name="Resume")
    expect(resume).to_be_visible()
    settled(page)
    screenshot(page, "training-stopped")
    resume.click()
    expect(stop).to_be_visible()
    expect(stop).to_have_count(0, timeout=300_000)  # it has ended
    expect(resume).to_have_count(0)
    settled(page)

    slider = main.get_by_role("slider")
    slider.focus()
    said = main.get_by_text(re.compile("After .* epochs?"))
    page.keyboard.press("End")  # it stays at the snapshot that was the last when it was first shown
    expect(said.first).to_contain_text("After 10 epochs")
    before = said.first.inner_text()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(said.first).not_to_have_text(before)
    settled(page)
    assert "moment=" in page.url
    after = said.first.inner_text()
    page.reload()
    expect(said.first).to_have_text(after)  # the address holds it
    settled(page)
    screenshot(page, "training-timeline")

    file = download(page, main.get_by_role("button", name=re.compile("Curves")))
    lines = Path(file.path()).read_text().splitlines()
    assert lines[0].startswith("step,epochs,bound") and float(lines[-1].split(",")[1]) == 10
    file = download(page, main.get_by_role("button", name=re.compile("Model")))
    assert file.suggested_filename.endswith("model.safetensors")
    settled(page)

    delete = main.get_by_role("button", name="Delete …")
    sidebar = page.get_by_test_id("stSidebar")
    sidebar.get_by_text("Train a small model").click()
    still(page)
    sidebar.get_by_role("button", name="Start training").click()
    expect(stop).to_be_visible()  # of the run just started, which the page now shows
    stop.click()
    expect(resume).to_be_visible()

    delete.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    name = re.search(r"\d{8}-\S+", dialog.inner_text())[0]
    screenshot(page, "training-delete")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    delete.click()
    dialog.get_by_role("button", name="Delete it").click()
    expect(dialog).to_have_count(0)
    settled(page)
    expect(main.get_by_text(name)).to_have_count(0)
    assert_clean(page)
