"""The upload editor: what the page reads is what iwae/images reads after the same edit."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from iwae.images.digits import prepare
from iwae.images.edits import Edit
from tests import pictures
from tests.browser.driver import assert_clean, screenshot, settled
from tests.browser.test_appearance import assert_accessible

APP = "app.py"


@pytest.fixture(scope="module")
def two() -> bytes:
    """Two digits beside each other, all on their side: a photo turned left."""
    page = np.full((320, 600), 255, np.uint8)
    for number, left in ((0, 0), (2, 300)):
        page[10:310, left : left + 300] = (
            Image.open(io.BytesIO(pictures.picture(number))).convert("L").resize((300, 300))
        )
    file = io.BytesIO()
    Image.fromarray(np.rot90(page)).save(file, "PNG")
    return file.getvalue()


def read(page: Page) -> np.ndarray:
    """What the editor shows as read, once it is of what was last asked for."""
    settled(page)
    expect(page.locator("canvas.seen")).not_to_have_class("seen old")
    levels = page.locator("canvas.seen").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    )
    return np.array(levels).reshape(28, 28) / 255


def test_a_photo_is_mended_by_hand(visit, two):
    page = visit(APP, "?a=digits-small-vae-k1&b=digits-small-iwae-k50&data=digits", width=420)
    page.get_by_role("button", name="Upload, photograph or pick").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Upload", exact=True).click()
    dialog.locator("input[type=file]").set_input_files({"name": "two.png", "mimeType": "image/png", "buffer": two})
    expect(dialog.get_by_role("button", name="Turn right")).to_be_visible()
    assert np.abs(read(page) - prepare(two).image).max() < 0.003

    dialog.get_by_role("button", name="Turn right").click()
    upright = prepare(two, edit=Edit(turn=90))
    assert np.abs(read(page) - upright.image).max() < 0.003
    boxes = upright.boxes
    assert len(boxes) == 2

    other = dialog.locator("canvas.picture")
    frame, scale = other.bounding_box(), other.bounding_box()["width"] / 600
    middle = [(boxes[1][axis] + boxes[1][axis + 2]) / 2 * scale for axis in (0, 1)]
    other.click(position={"x": frame["width"] / 2 + middle[0], "y": frame["height"] / 2 + middle[1]})  # the other mark
    margin = 0.06 * max(boxes[1][2] - boxes[1][0], boxes[1][3] - boxes[1][1])
    box = tuple(round(float(side), 1) for side in np.add(boxes[1], [-margin, -margin, margin, margin]))
    chosen = read(page)
    assert np.abs(chosen - prepare(two, edit=Edit(turn=90, box=box)).image).max() < 0.003
    assert np.abs(chosen - upright.image).mean() > 0.05

    other.focus()
    page.keyboard.press("Shift+ArrowDown")  # the lower side by 4 pixels
    box = (*box[:3], box[3] + 4)
    assert np.abs(read(page) - prepare(two, edit=Edit(turn=90, box=box)).image).max() < 0.003
    dialog.get_by_role("button", name="Invert").click()
    inverted = prepare(two, edit=Edit(turn=90, box=box, dark_ink=False))
    assert np.abs(read(page) - inverted.image).max() < 0.003
    dialog.get_by_role("button", name="Start over").click()
    assert np.abs(read(page) - prepare(two).image).max() < 0.003
    dialog.get_by_role("button", name="Erase").click()
    other.focus()
    page.keyboard.press("Space")  # in the middle, where there is nothing
    assert np.abs(read(page) - prepare(two, edit=Edit(erased=((0.0, 0.0),))).image).max() < 0.003
    screenshot(page, "picture-editor")
    assert_accessible(page)
    dialog.get_by_role("button", name="Use this digit").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_test_id("stMain").get_by_role("heading", name="Latent-space explorer")).to_be_visible()
    assert_clean(page)
