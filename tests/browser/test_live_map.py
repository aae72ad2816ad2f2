"""Latent space: whatever place the pointer is at, both models decode it, and at once."""

import numpy as np
import torch
from playwright.sync_api import Page

from iwae import catalog, checkpoints
from iwae.analysis import latent
from iwae.data import datasets
from tests.browser.driver import assert_clean, screenshot, settled, still
from tests.browser.live import WATCH, fetched, levels

IMAGES = 300
PLACE = """([key, across, up]) => {
    const map = document.querySelector(`.st-key-${key} .js-plotly-plot`);
    const box = map.querySelector(".nsewdrag").getBoundingClientRect();
    const { xaxis: { range: [left, right] }, yaxis: { range: [bottom, top] } } = map._fullLayout;
    const [x, y] = [box.left + across * box.width, box.bottom - up * box.height].map(Math.round);
    const [u, v] = [(x - box.left) / box.width, (box.bottom - y) / box.height];
    return [x, y, left + u * (right - left), bottom + v * (top - bottom)];
}"""  # a pixel of the screen, and where it lies on the map


POINT = """() => {
    const map = document.querySelector(".st-key-map-a .js-plotly-plot"), corner = map.getBoundingClientRect();
    const { xaxis, yaxis } = map._fullLayout, [{ customdata, x, y }] = map._fullData;
    return [customdata[0], corner.left + xaxis._offset + xaxis.l2p(x[0]), corner.top + yaxis._offset + yaxis.l2p(y[0])];
}"""  # the number of an image, and where its point is on the screen


def pictures(page: Page) -> np.ndarray:
    """Grey levels [models, 784]."""
    rows = page.locator(".st-key-live-map .models canvas")
    return np.array([levels(rows.nth(place)).ravel() for place in range(2)])


def decoded(place: np.ndarray | None, **units: float) -> np.ndarray:
    """What torch decodes a place on the maps of the default pair to, [models, 784] of grey levels: the code of test
    image 0, moved within each model's plane; or left where it is, with these units of A changed."""
    x = datasets.load("mnist-5k", download=False).binary("test")
    models = [checkpoints.load(catalog.SHIPPED / f"{key}{checkpoints.SUFFIX}")[0] for key in catalog.DEFAULT_PAIR]
    means = [latent.encode(model, x).mean for model in models]
    chosen = [mean[latent.subset(len(x), IMAGES)] for mean in means]
    views = [latent.pca(mean) for mean in chosen]
    turn = latent.procrustes(*(view.project(mean) for view, mean in zip(views, chosen, strict=True)))[0]
    views[1] = views[1].rotated(turn)
    codes = [mean[0] if place is None else view.lift(place, mean[0]) for view, mean in zip(views, means, strict=True)]
    for unit, value in units.items():
        codes[0][int(unit.removeprefix("unit_"))] = value
    with torch.no_grad():
        for model in models:
            model.half().float()  # as the page has the weights
        found = [model.decode(torch.from_numpy(code).float()) for model, code in zip(models, codes, strict=True)]
    return 255 * torch.stack(found).numpy()


def test_the_place_under_the_pointer_is_decoded_by_both(visit):
    page = visit("app.py", f"Latent_space?data=mnist-5k&images={IMAGES}&map=PCA")
    page.add_init_script(WATCH)
    page.reload()
    still(page)
    fetched(page, 3)
    own = pictures(page)
    assert own.max() > 200 and not page.locator(".live-map-place").count()

    page.locator(".st-key-map-b .nsewdrag").scroll_into_view_if_needed()
    start, end = page.evaluate(PLACE, ["map-a", 0.2, 0.2]), page.evaluate(PLACE, ["map-b", 0.7, 0.6])
    page.mouse.move(*start[:2])
    page.mouse.move(*end[:2], steps=80)
    page.wait_for_timeout(500)
    there = pictures(page)
    assert np.abs(there - decoded(np.array(end[2:]))).max() <= 3
    assert page.locator(".live-map-place:visible").count() == 2
    frames = page.evaluate("frames")
    interval = np.median(np.diff([frame["at"] for frame in frames]))
    latency = np.median([frame["latency"] for frame in frames])
    print(f"{1000 / interval:.0f} frames a second, {latency:.1f} ms from the pointer to the pictures, {len(frames)}")
    assert len(frames) > 20 and interval < 100 and latency < 100  # ms, for a busy machine
    screenshot(page, "latent-live")

    page.locator(".st-key-live-map .live-map").focus()
    before = page.locator(".st-key-live-map .status").inner_text()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(400)
    assert page.locator(".st-key-live-map .status").inner_text() != before
    assert (pictures(page) != there).any()
    page.keyboard.press("Escape")
    settled(page)
    np.testing.assert_array_equal(pictures(page), own)

    page.get_by_label("a click pins a place").check()
    page.locator(".st-key-map-b .nsewdrag").scroll_into_view_if_needed()
    start, end = page.evaluate(PLACE, ["map-a", 0.2, 0.2]), page.evaluate(PLACE, ["map-b", 0.7, 0.6])
    for spot in (start, end):
        page.mouse.click(*spot[:2])
    page.locator(".slide").fill("0.25")
    page.wait_for_timeout(100)
    between = 0.75 * np.array(start[2:]) + 0.25 * np.array(end[2:])
    assert np.abs(pictures(page) - decoded(between)).max() <= 3
    assert page.locator(".live-map-place:visible").count() == 6  # two pins and a ring on each map
    page.get_by_role("button", name="Clear the pins").click()

    page.get_by_text("Top units").first.click()
    slider = page.locator(".st-key-live-map .model label").first
    unit = slider.inner_text().split()[1]
    slider.locator("input").fill("3")
    page.wait_for_timeout(100)
    moved = decoded(None, **{f"unit_{unit}": 3.0})
    assert np.abs(pictures(page) - moved).max() <= 3 and np.abs(moved - own)[0].max() > 30

    page.locator(".st-key-map-b .nsewdrag").scroll_into_view_if_needed()
    number, *point = page.evaluate(POINT)
    page.mouse.move(point[0] - 9, point[1] - 9)
    page.mouse.move(*point, steps=4)
    thumbnail = page.locator(".live-map-thumbnail")
    thumbnail.wait_for()
    grey = datasets.load("mnist-5k", download=False).test.images[number].numpy().reshape(28, 28)
    assert np.abs(levels(thumbnail) - grey.astype(float)).mean() < 5  # of 16 shades
    assert_clean(page)
