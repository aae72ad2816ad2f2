"""Your own images in a real browser: from a folder in a shell, or by the dialog, to pages that show their classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from iwae import checkpoints
from iwae.data import datasets
from iwae.data.sources import SOURCES
from tests.browser.driver import assert_clean, screenshot, settled, still
from tests.browser.test_appearance import assert_accessible
from tests.pictures import save_shapes, zipped
from tests.server import ROOT, Server

SHAPES, CLASSES = "shapes", ("discs", "squares")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """A folder with 200 pictures of 16×16, in a folder for each of two classes."""
    folder = tmp_path_factory.mktemp("own") / SHAPES
    save_shapes(folder)
    return folder


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    """A server with a data folder of its own."""
    home = tmp_path_factory.mktemp("own-server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IWAE_DATA_DIR", str(home / "data"))
        running = Server(ROOT / "app.py", home)
    yield running
    running.stop()


@pytest.fixture
def server(own_server):
    return lambda app_file: own_server


def pages_show_the_classes(page: Page, server: Server) -> None:
    """With the model of the only run, Posterior says the class of the digit in hand, and the maps of Latent space have
    each test image in its class."""
    (run,) = (path.name for path in (server.home / "runs").iterdir() if (path / "config.json").is_file())
    (name,) = datasets.names(directory=server.home / "data")[len(SOURCES) :]
    test = datasets.load(name, directory=server.home / "data").test
    query = f"a=run:{run}&b=run:{run}"
    page.goto(f"{server.url}/Posterior?{query}&image=3")
    settled(page)
    sidebar, main = page.get_by_test_id("stSidebar"), page.get_by_test_id("stMain")
    expect(sidebar.get_by_role("combobox", name="Data set")).to_have_value(SHAPES)
    label = CLASSES[int(test.labels[3])]
    expect(sidebar.get_by_text(f"Test image 3 of {SHAPES}, stochastic binarization, label {label}")).to_be_visible()
    expect(main.get_by_text("ESS").first).to_be_visible()
    page.goto(f"{server.url}/Latent_space?{query}")
    settled(page)
    still(page)
    chart = main.locator(".js-plotly-plot").first
    groups = chart.evaluate("plot => plot.data.filter(trace => trace.customdata).map(t => [t.name, t.customdata])")
    found = {name: sorted(images) for name, images in groups if name in CLASSES}
    assert found == {each: (test.labels == code).nonzero().ravel().tolist() for code, each in enumerate(CLASSES)}
    for each in CLASSES:
        expect(chart.get_by_text(each, exact=True)).to_be_visible()


def test_from_a_folder_in_a_shell(visit, own_server, shapes):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "IWAE_DATA_DIR": str(own_server.home / "data"), "OMP_NUM_THREADS": "1",
        "IWAE_RUNS_DIR": str(own_server.home / "runs"), "XDG_CACHE_HOME": str(own_server.home / "cache"),
    }  # fmt: skip
    model = shapes.parent / "model.safetensors"

    def iwae(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "iwae", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    iwae("train", "--dataset", f"path:{shapes}", "--k", "5", "--epochs", "3", "--model", "20:2", "--out", str(model))
    name = checkpoints.read_card(model).training["dataset"]
    assert re.fullmatch(rf"{SHAPES}@[0-9a-f]{{8}}", name)
    assert f"20 test images of {name}" in iwae("evaluate", str(model), "--samples", "20")
    card = iwae("card", str(model))
    assert f"{SHAPES}, stochastic binarization (`{name}`), 160 training images" in card
    page = visit("app.py")
    pages_show_the_classes(page, own_server)
    assert_clean(page)
    iwae("data", "remove", name)


def test_by_the_dialog(visit, own_server, shapes):
    (shapes.parent / "shapes.zip").write_bytes(zipped(shapes))
    page = visit("app.py")
    sidebar, main, dialog = page.get_by_test_id("stSidebar"), page.get_by_test_id("stMain"), page.get_by_role("dialog")
    sidebar.get_by_role("button", name="Add images …").first.click()
    expect(dialog).to_be_visible()
    dialog.locator("input[type=file]").set_input_files(shapes.parent / "shapes.zip")
    expect(dialog.get_by_text("discs (100), squares (100)")).to_be_visible()
    expect(dialog.get_by_text("160 to train, 20 to validate, 20 to test")).to_be_visible()
    settled(page)
    assert_accessible(page)
    screenshot(page, "own-images-preview")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(main.get_by_text(re.compile("have 16×16 pixels, and models A and B take 28×28"))).to_be_visible()
    settled(page)
    assert_accessible(page)
    screenshot(page, "own-images-added")
    main.get_by_role("button", name="Open the form").click()
    start = sidebar.get_by_role("button", name="Start training")
    expect(start).to_be_visible()
    still(page)
    for field, value in (("Samples per image k", "2"), ("Epochs", "2")):
        box = sidebar.get_by_role("textbox", name=field, exact=True)
        box.fill(value)
        box.press("Enter")
        settled(page)
    start.click()
    use = sidebar.get_by_role("button", name="Use as A")
    expect(use.first).to_be_visible(timeout=120_000)
    settled(page)
    pages_show_the_classes(page, own_server)
    assert_clean(page)
