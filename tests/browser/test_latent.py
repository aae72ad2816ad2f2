"""The latent space in a real browser: clicks and lassos on the maps, and what they do elsewhere."""

import re

from playwright.sync_api import Page, expect

from tests.browser.driver import assert_clean, download, screenshot, settled, still

APP = "app.py"


def plot(page: Page, name: str):
    return page.locator(f".st-key-map-{name} .js-plotly-plot")


def drawn(page: Page) -> None:
    """Wait until both maps are on the screen."""
    settled(page)
    for name in "ab":
        expect(plot(page, name).locator(".nsewdrag").first).to_be_visible()


def box(page: Page, name: str) -> dict:
    area = plot(page, name).locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    return area.bounding_box()


def selected(page: Page, name: str) -> set[int]:
    """Numbers of the images that are selected on a map; none where all look the same."""
    return set(
        plot(page, name).evaluate(
            """plot => plot.data.filter(trace => trace.selectedpoints && trace.customdata)
                .flatMap(trace => Array.from(trace.selectedpoints, point => trace.customdata[point]))"""
        )
    )


def lasso(page: Page, name: str, corners) -> None:
    plot(page, name).hover()
    plot(page, name).locator('[data-title="Lasso Select"]').click()
    area = box(page, name)
    (x, y), *rest = [(area["x"] + u * area["width"], area["y"] + v * area["height"]) for u, v in corners]
    page.mouse.move(x, y)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def test_a_lasso_selects_the_same_images_on_the_other_map(visit):
    page = visit(APP, "Latent_space")
    drawn(page)
    assert not selected(page, "a")
    for name in "ab":
        page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 0)")
        lasso(page, name, [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.3, 0.6), (0.3, 0.3)])
        expect(page.get_by_text(re.compile(r"of [\d,]+ images selected"))).to_be_visible()
        drawn(page)
        chosen = selected(page, name)
        told = page.get_by_text(re.compile(r"of [\d,]+ images selected")).inner_text()
        count, total = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", told)[:2])
        assert 5 < len(chosen) == count < total and selected(page, "a") == selected(page, "b")
        screenshot(page, f"latent-lasso-{name}")
        page.get_by_role("button", name="Clear the selection").click()
        settled(page)
        assert not selected(page, "a") | selected(page, "b")
    assert_clean(page)


def test_a_narrow_window_has_one_map_above_the_other_beside_the_pictures(visit):
    page = visit(APP, "Latent_space", width=1024)
    drawn(page)
    for name in "ab":
        area = box(page, name)
        assert min(area["width"], area["height"]) > 250
        for picture in page.locator(".st-key-live-map .models canvas").all():
            expect(picture).to_be_in_viewport(ratio=1)
    page.set_viewport_size({"width": 1400, "height": 900})
    drawn(page)
    assert box(page, "a")["y"] == box(page, "b")["y"]
    assert_clean(page)


def apart(page: Page, name: str) -> tuple[int, float, float]:
    """(image, x, y on the page) of the point of a map that is farthest from any other: a click can mean no other."""
    number, x, y = plot(page, name).evaluate(
        """plot => {
            const {xaxis, yaxis} = plot._fullLayout;
            const points = plot._fullData.filter(trace => trace.customdata).flatMap(trace => Array.from(
                trace.customdata,
                (image, j) => [image, xaxis._offset + xaxis.l2p(trace.x[j]), yaxis._offset + yaxis.l2p(trace.y[j])]));
            const gap = ([image, x, y]) => Math.min(
                ...points.map(([other, u, v]) => other === image ? Infinity : Math.hypot(x - u, y - v)));
            return points.map(point => [gap(point), point]).reduce((a, b) => a[0] > b[0] ? a : b)[1];
        }"""
    )
    corner = plot(page, name).bounding_box()
    return number, corner["x"] + x, corner["y"] + y


def test_a_click_opens_the_digit_and_then_its_posterior(visit):
    page = visit(APP, "Latent_space")
    drawn(page)
    box(page, "b")
    image, x, y = apart(page, "b")
    page.mouse.move(x - 20, y - 4)
    page.mouse.move(x, y, steps=4)
    page.wait_for_timeout(500)  # plotly finds the point below the mouse before it can be clicked
    page.mouse.click(x, y, delay=50)
    expect(page.get_by_test_id("stSidebar").get_by_text(f"Test image {image:,} of")).to_be_visible()
    drawn(page)
    assert f"image={image}" in page.url
    page.get_by_test_id("stMain").get_by_role("link", name=re.compile("Its posterior")).click()
    expect(page.get_by_role("heading", name="The posterior of one digit")).to_be_visible()
    settled(page)
    expect(page.get_by_role("spinbutton", name=re.compile("Test image of"))).to_have_value(str(image))
    page.go_back()
    expect(page.get_by_role("heading", name="Latent space", exact=True)).to_be_visible()
    settled(page)
    assert f"/Latent_space?image={image}" in page.url
    drawn(page)
    expect(page.get_by_test_id("stSidebar").get_by_text(f"Test image {image:,} of")).to_be_visible()
    assert_clean(page)


def test_the_address_holds_the_view(visit):
    page = visit(APP, "Latent_space")
    drawn(page)
    page.get_by_role("radio", name="Two units").click()
    settled(page)
    page.get_by_role("combobox", name=re.compile("Colour by")).click()
    page.get_by_role("option", name="posterior spread").click()
    drawn(page)
    field = page.get_by_role("spinbutton", name=re.compile("Unit of A on x"))
    field.fill("7")
    field.press("Enter")
    drawn(page)
    other = visit(APP, page.url.split("/", 3)[3])
    drawn(other)
    read = """plot => [plot._fullLayout.xaxis.title.text, plot.data[0].marker.colorbar.title.text,
        Array.from(plot._fullData[0].x)]"""
    found = plot(other, "a").evaluate(read)
    assert found == plot(page, "a").evaluate(read) and found[:2] == ["unit 7", "tr Σ(x)"] and len(found[2]) > 100
    other.reload()
    drawn(other)
    assert plot(other, "a").evaluate(read) == found
    assert_clean(page)
    assert_clean(other)


def test_the_numbers_can_be_downloaded(visit):
    page = visit(APP, "Latent_space?images=200")
    drawn(page)
    still(page)
    page.get_by_text("In numbers").first.click()
    waiting = download(page, page.locator(".st-key-map-a-csv button"))
    lines = waiting.path().read_text().splitlines()
    assert waiting.suggested_filename == "map-a.csv" and len(lines) == 201
    assert lines[0].startswith("image,x,y,tr Σ(x)")
    assert_clean(page)


def test_a_map_is_saved_as_png_or_as_svg_with_its_text_and_points(visit):
    page = visit(APP, "Latent_space?images=200&map=PCA")
    drawn(page)

    def saved():
        still(page)
        plot(page, "a").hover()
        return download(page, plot(page, "a").locator('[data-title^="Download plot"]'))

    png = saved()
    assert png.suggested_filename == "map-a.png" and png.path().read_bytes().startswith(b"\x89PNG")
    page.get_by_text("Figures as SVG").click()
    drawn(page)
    svg = saved()
    content = svg.path().read_text(encoding="utf-8")
    assert svg.suggested_filename == "map-a.svg" and ">PC 1<" in content and "<image" not in content
    assert content.count('class="point') >= 200
    assert_clean(page)


def test_umap_comes_in_the_background_and_is_kept(visit):
    page = visit(APP, "Latent_space?images=200&map=UMAP")
    expect(page.get_by_text("Until then: PCA.")).to_be_visible()
    page.get_by_role("button", name="Compute UMAP").click()
    expect(page.get_by_text(re.compile("UMAP of both models, computed in the background"))).to_be_visible()
    page.get_by_role("button", name="Random image").click()  # the page answers meanwhile
    settled(page)
    expect(plot(page, "a").get_by_text("UMAP 1")).to_be_visible(timeout=120_000)
    drawn(page)
    expect(page.get_by_text(re.compile("Areas on a UMAP map are not variances")).first).to_be_visible()
    screenshot(page, "latent-umap")
    page.reload()
    drawn(page)
    expect(plot(page, "b").get_by_text("UMAP 1")).to_be_visible()
    assert page.get_by_text("Until then: PCA.").count() == 0
    assert_clean(page)
