"""The app's main job in a real browser: upload, draw, pick, and train your model."""

import io
import json
import re
import time
import zipfile

from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from iwae import catalog
from tests.browser.driver import assert_clean, download, screenshot, settled
from tests.server import DIRECT

APP = "app.py"


def picture() -> bytes:
    """A two, written in dark ink on light paper."""
    image = Image.new("RGB", (240, 300), (236, 228, 210))
    draw = ImageDraw.Draw(image)
    draw.line([(60, 100), (90, 60), (150, 60), (170, 110), (60, 240), (180, 240)], fill=(30, 40, 90), width=22)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def values(page: Page) -> list[str]:
    """The effective samples of A and B; the other two numbers change by themselves when chains have annealed."""
    return page.get_by_test_id("stMetricValue").all_inner_texts()[1::2]


def tiles(page: Page) -> list[str]:
    """Addresses of all pictures on the page, which are their contents; the sidebar has the digit in hand."""
    return (
        page.get_by_test_id("stMain")
        .locator('[data-testid="stImage"] img')
        .evaluate_all("images => images.map(image => image.src)")
    )


def changed(page: Page, action, read=values):
    """What `read` gives once `action` has changed it."""
    before = read(page)
    action()
    deadline = time.monotonic() + 60
    while read(page) == before and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    settled(page)
    after = read(page)
    assert after != before
    return after


def test_first_paint_shows_both_models_at_work(visit):
    page = visit(APP)
    expect(page.get_by_role("heading", name=re.compile("A · VAE k = 1"))).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile("B · IWAE k = 50"))).to_be_visible()
    assert len(values(page)) == 2 and len(tiles(page)) == 2  # ten samples of each model
    for address in tiles(page):
        image = Image.open(io.BytesIO(DIRECT.open(address).read()))
        assert (image.format, image.width) == ("PNG", 3 * 148)  # three by three screen pixels for each of a digit's
    page.get_by_test_id("stMain").get_by_role("link", name="See its draws").click()
    expect(page.get_by_role("heading", name="The posterior of one digit")).to_be_visible()
    settled(page)
    expect(page.get_by_role("heading", name=re.compile("A · VAE k = 1"))).to_be_visible()  # still the same pair
    expect(page.get_by_role("heading", name=re.compile("B · IWAE k = 50"))).to_be_visible()
    assert_clean(page)


def test_an_uploaded_picture_is_sampled_by_both_models(visit):
    page = visit(APP, "Posterior?digit=Upload&samples=1000")
    expect(page.get_by_text("PNG, JPEG, WebP")).to_be_visible()
    file = {"name": "two.png", "mimeType": "image/png", "buffer": picture()}
    after = changed(
        page, lambda: page.get_by_test_id("stMain").get_by_test_id("stFileUploaderDropzoneInput").set_input_files(file)
    )
    assert len(after) == 2
    assert page.get_by_text("Binarized", exact=True).count() == 1
    assert len(tiles(page)) >= 2 * 2 + 6
    screenshot(page, "posterior-upload")
    assert_clean(page)


def test_a_bad_upload_is_explained(visit):
    page = visit(APP, "Posterior?digit=Upload")
    file = {"name": "digit.png", "mimeType": "image/png", "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}
    page.get_by_test_id("stMain").get_by_test_id("stFileUploaderDropzoneInput").set_input_files(file)
    expect(page.get_by_test_id("stAlert")).to_contain_text("digit.png")
    settled(page)
    assert_clean(page)


def test_a_stroke_changes_the_samples(visit):
    page = visit(APP, "Posterior?digit=Draw&samples=1000")
    surface = page.locator(".st-key-canvas .paper canvas")

    def stroke(x0, y0, x1, y1):
        surface.scroll_into_view_if_needed()
        box = surface.bounding_box()
        page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y0 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"], steps=8)
        page.mouse.up()

    first = changed(page, lambda: stroke(0.5, 0.2, 0.5, 0.8))
    assert len(first) == 2
    pictures = tiles(page)
    second = changed(page, lambda: stroke(0.3, 0.2, 0.7, 0.2))
    assert second != first and set(tiles(page)) != set(pictures)
    assert_clean(page)


def test_the_address_holds_the_view(visit):
    page = visit(APP, "Posterior?samples=700&seed=3&image=12")
    assert page.get_by_test_id("stMetricDelta").all_inner_texts()[1] == "of 700 draws"
    changed(page, lambda: page.get_by_test_id("stMain").get_by_role("button", name="Random image").click())
    copied = page.url
    assert "seed=3" in copied and "samples=700" in copied and "image=" in copied
    other = visit(APP, copied.split("/", 3)[3])
    assert values(other) == values(page)
    assert_clean(page)


def test_train_stop_resume_and_choose(visit):
    """The sidebar's form: a run starts, shows progress, survives a reload, stops, resumes, is offered."""
    page = visit(APP)
    sidebar = page.get_by_test_id("stSidebar")
    sidebar.get_by_text("Train a small model").click()
    epochs = sidebar.get_by_label("Epochs", exact=True)
    epochs.fill("60")
    epochs.press("Enter")
    settled(page)
    sidebar.get_by_role("button", name="Start training").click()
    expect(sidebar.get_by_text(re.compile(r"\d% · \d+ (s|min) left"))).to_be_visible(timeout=240_000)
    expect(sidebar.get_by_text(re.compile(r"bound −?-?\d+.*images/s"))).to_be_visible(timeout=60_000)
    screenshot(page, "training")
    page.reload()  # a new session: the run goes on, and the page finds it
    sidebar.get_by_role("button", name="Stop").click(timeout=60_000)
    resume = sidebar.get_by_role("button", name="Resume")
    expect(resume).to_be_visible(timeout=60_000)
    stopped = sidebar.get_by_text(re.compile(r"epochs · .*images/s")).inner_text()
    resume.click()
    expect(sidebar.get_by_role("button", name="Stop")).to_be_visible(timeout=60_000)
    expect(sidebar.get_by_text(re.compile(r"\d% · \d+ (s|min) left"))).to_be_visible(timeout=240_000)
    sidebar.get_by_role("button", name="Stop").click()
    expect(resume).to_be_visible(timeout=60_000)
    further = sidebar.get_by_text(re.compile(r"epochs · .*images/s")).inner_text()
    before, after = (float(re.search(r"([\d.]+) epochs", said)[1]) for said in (stopped, further))
    assert 0 < before <= after < 60
    sidebar.get_by_role("button", name="Use as B").click()
    expect(page.get_by_role("heading", name=re.compile("B · IWAE k = 20"))).to_be_visible(timeout=60_000)
    settled(page)
    assert_clean(page)


def test_the_report_holds_what_the_page_shows(visit, tmp_path):
    page = visit(APP, "Posterior?image=3&samples=400&seed=5")
    file = download(page, page.get_by_role("button", name="Download a report of this view"))
    archive = zipfile.ZipFile(file.path())
    view, summary = (json.loads(archive.read(name)) for name in ("view.json", "B/summary.json"))
    assert (view["samples"], view["seed"], view["address"]["image"]) == (400, 5, "3")
    shown = page.get_by_text("draws of q alone").nth(1)  # once the chains are there
    expect(shown).to_contain_text(f"{summary['log_p_nats']:.2f}".replace("-", "−"), timeout=60_000)
    page.get_by_text("log p̂(x) in numbers").wait_for()
    file = download(page, page.get_by_role("button", name="As one HTML page"))
    models = "-vs-".join(catalog.DEFAULT_PAIR)
    assert re.fullmatch(rf"posterior-{models}-\d{{4}}-\d\d-\d\d\.html", file.suggested_filename)
    file.save_as(tmp_path / "report.html")
    alone = page.context.new_page()  # it unpacks its figures by itself
    alone.goto((tmp_path / "report.html").as_uri())
    expect(alone.locator("#curve .main-svg").first).to_be_visible()
    expect(alone.locator("#failed")).to_be_empty()
    alone.locator("#curve").hover()
    with alone.expect_download() as waiting:
        alone.locator('#curve [data-title="Download plot as an SVG"]').click()
    content = waiting.value.path().read_text(encoding="utf-8")
    assert waiting.value.suggested_filename == "curve.svg" and ">number of samples k<" in content
    assert_clean(page)


def test_on_a_phone_the_sidebar_closes_when_a_page_is_chosen_in_it(visit):
    page = visit(APP, width=420)
    sidebar = page.get_by_test_id("stSidebar")
    page.get_by_test_id("stExpandSidebarButton").click()
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    sidebar.get_by_role("link", name="Samples", exact=True).click()
    page.wait_for_url("**/Samples*")
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    settled(page)
    page.set_viewport_size({"width": 1400, "height": 900})
    page.get_by_test_id("stExpandSidebarButton").click()
    sidebar.get_by_role("link", name="Bounds", exact=True).click()
    page.wait_for_url("**/Bounds*")
    settled(page)
    expect(sidebar).to_have_attribute("data-collapsed", "false")  # where it covers nothing it stays
    assert_clean(page)


def test_on_a_phone_the_sidebar_opens_at_the_form(visit):
    page = visit(APP, "Training", width=420)
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    page.get_by_test_id("stMain").get_by_role("button", name="Open the form").click()
    expect(sidebar).to_have_attribute("data-collapsed", "false")
    expect(sidebar.get_by_label("Epochs", exact=True)).to_be_visible()
    expect(page.locator(".st-key-train summary")).to_be_in_viewport()
    settled(page)
    page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    expect(sidebar).to_have_attribute("data-collapsed", "true")
    screenshot(page, "form")
    assert_clean(page)
