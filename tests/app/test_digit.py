"""The digit in hand is the same on every page, outlives page changes, and comes along with a link."""

import io
import json
import zipfile

import numpy as np
import pytest
import streamlit as st
import torch
from PIL import Image

from iwae import catalog
from iwae.analysis import latent, reconstruction
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.inference import posterior as engine
from pages.common.input import digit
from pages.frame import navigation
from tests.app.test_pages import values

PAIR = {"a": "digits-small-vae-k1", "b": "digits-small-iwae-k50", "data": "digits"}
PAGES = [file for file, _ in navigation.PAGES]


@pytest.fixture(scope="module")
def seven() -> torch.Tensor:
    """A seven that is in no data set."""
    x = torch.zeros(28, 28)
    x[6:9, 7:21] = 1
    for row in range(9, 23):
        x[row, 20 - (row - 6) // 2 - 2 : 20 - (row - 6) // 2 + 1] = 1
    return x.reshape(-1)


def models():
    return [load(catalog.entries()[0][key].path)[0] for key in (PAIR["a"], PAIR["b"])]


def words(test) -> str:
    kinds = ("markdown", "caption", "warning", "info")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind)).replace("\\", "")


def test_the_bits_of_a_digit_in_an_address():
    for seed in range(20):
        x = (torch.rand(784, generator=torch.Generator().manual_seed(seed)) < seed / 19).float()
        text = digit.pack(x, (28, 28))
        assert len(text) <= 138 and torch.equal(digit.unpack(text)[0], x)
        assert text == "".join(c for c in text if c.isascii() and (c.isalnum() or c in "-_."))


@pytest.mark.parametrize("text", ["", "x", "28x28", "28x28.", "28x28.AAAA", "32x32.AAAA", "28x28." + "é" * 131, "inf"])
def test_what_is_no_digit_in_an_address_is_refused(app, text):
    with pytest.raises(digit.LinkError):
        digit.unpack(text)
    test = app(x=text, **PAIR)
    assert "asks for x = " in words(test) and "x" not in test.query_params


@pytest.mark.parametrize("page", PAGES)
def test_a_linked_digit_is_in_hand_on_every_page(app, seven, page):
    test = app(page, x=digit.pack(seven, (28, 28)), **PAIR)
    assert "From a link" in words(test.sidebar)
    assert test.query_params["x"] == digit.pack(seven, (28, 28))  # and the link can be copied on


def test_every_page_shows_the_digit_and_not_a_test_image(app, seven):
    query = {"x": digit.pack(seven, (28, 28))} | PAIR
    a, b = models()
    posterior = app("pages/1_Posterior.py", samples=300, **query)
    for metric, model in zip(posterior.metric[::2], (a, b), strict=True):
        assert f"{engine.posterior(model, seven, samples=300).log_p:.2f}".replace("-", "−") in metric.value
    maps = app("pages/2_Latent_space.py", **query)
    spec = json.loads(maps.get("plotly_chart")[0].proto.spec)
    space = latent.encode(a, datasets.load("digits").binary("test"))
    place = latent.pca(space.mean).project(latent.encode(a, seven[None]).mean)[0]
    chosen = next(trace for trace in spec["data"] if trace.get("name") == "the digit in hand")
    assert (*values(chosen["x"]), *values(chosen["y"])) == pytest.approx(tuple(place), abs=1e-4)
    rows = app("pages/4_Reconstructions.py", **query)
    loss = reconstruction.reconstructions(a, seven[None], samples=50).losses["mean"].item()
    first = next(caption.value for caption in rows.main.caption if ": input; " in caption.value)
    assert f"mean of q {loss:.1f}" in first


def test_it_outlives_page_changes_until_it_is_removed(app, seven):
    test = app("pages/1_Posterior.py", x=digit.pack(seven, (28, 28)), image=3, **PAIR)
    for page in PAGES:
        test.switch_page(page).run()
        assert "From a link" in words(test.sidebar) and not test.exception
    test.button(key="digit.remove").click().run()
    assert "Test image 0 of" in words(test.sidebar) and "x" not in test.query_params
    test.button(key="digit.random").click().run()
    number = test.session_state["image"]
    test.switch_page("pages/6_Bounds.py").run()
    assert f"Test image {number} of" in words(test.sidebar)


def test_an_upload_reaches_the_other_pages_and_the_report(app, monkeypatch):
    paper = np.full((200, 160), 240, dtype=np.uint8)
    paper[30:170, 70:90] = 30
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "PNG")
    test = app("pages/1_Posterior.py", digit="Upload", samples=300, **PAIR)
    test.file_uploader[0].upload("one.png", file.getvalue(), "image/png").run()
    own, _ = digit.unpack(test.query_params["x"])
    test.switch_page("pages/3_Active_units.py").run()
    assert "one.png" in words(test.sidebar)
    made = []
    monkeypatch.setattr(st, "download_button", lambda label, data, *_, **options: made.append((label, data)))
    test.run()
    with zipfile.ZipFile(io.BytesIO(dict(made)["Download a report of this view"]())) as found:
        lines = found.read("image.csv").decode().split()[1:]
    assert [int(line.split(",")[1]) for line in lines] == own.int().tolist()


def test_what_a_link_asks_for_and_is_not_here(app):
    test = app(a="run:20200101-000000-gone", image=9999, data="digits")
    assert "asks for the model run:20200101-000000-gone" in words(test.sidebar)
    assert "no test image 9,999 here: their numbers are 0 to" in words(test.sidebar)
