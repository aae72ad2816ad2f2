"""Models of images that are neither 28×28 nor square, on every page."""

import re

import numpy as np
import pytest
import torch

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.data.datasets import Dataset
from iwae.images import digits, plain
from iwae.images.edits import Edit
from iwae.model import Model
from iwae.training.config import TrainConfig
from pages.common.input import digit
from pages.frame import navigation
from tests.app import open_section

SHAPE = (12, 16)
A, B = "model:flat-a", "model:flat-b"


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch) -> Dataset:
    """An untrained VAE and IWAE of 100 pictures in two classes, which the app knows."""
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100, *SHAPE), dtype=np.uint8)
    data = Dataset.from_arrays(images, labels=np.arange(100) % 2, label_names=("even", "odd"), name="flat")
    assert datasets.add(data) == data.name
    for name, objective in (("flat-a", "vae"), ("flat-b", "iwae")):
        config = TrainConfig(dataset=data.name, model="9:2", objective=objective, k=5)
        model = Model(config.model_config, pixel_mean=data.pixel_mean, seed=len(objective))
        checkpoints.save(catalog.models_dir() / f"{name}.safetensors", model, Card(model.config, vars(config)))
    return data


@pytest.mark.parametrize("page", [file for file, _ in navigation.PAGES])
def test_every_section_of_every_page(app, page):
    test = app(page, a=A, b=B, image="3", samples="100")
    titles = [tab.label for tab in test.tabs]
    for title in titles or [""]:
        if title:
            open_section(test, title)
        assert not test.exception and not [error.value for error in test.error], title
    assert test.selectbox(key="data").value.startswith("flat@")


def test_a_link_carries_a_picture_of_any_shape(app):
    x = (torch.arange(192) % 5 == 0).float()
    text = digit.pack(x, SHAPE)
    assert text.startswith("12x16.") and torch.equal(digit.unpack(text)[0], x) and digit.unpack(text)[1] == SHAPE
    test = app(a=A, b=B, x=text)
    assert not test.exception and test.query_params["x"] == text
    odd = (torch.arange(15) % 2).float()  # 15 bits are not whole bytes
    assert torch.equal(digit.unpack(digit.pack(odd, (3, 5)))[0], odd)
    grey = (torch.arange(192) / 191 * 255).round() / 255
    assert torch.equal(digit.unpack(digit.pack(grey, SHAPE))[0], grey)


def test_a_picture_of_another_size_waits_for_models_of_its_size(app):
    x = (torch.arange(784) % 3 == 0).float()
    test = app(a=A, b=B, x=digit.pack(x, (28, 28)))
    assert not test.exception and "x" not in test.query_params
    assert any("28×28 pixels, and these models take 12×16" in caption.value for caption in test.caption)
    test.selectbox(key="a").set_value("digits-small-vae-k1")
    test.selectbox(key="b").set_value("digits-small-iwae-k50").run()
    assert not test.exception and test.query_params["x"] == digit.pack(x, (28, 28))


def test_models_of_two_sizes_are_not_compared(app):
    test = app(a=A, b="digits-small-vae-k1")
    assert [warning.value for warning in test.warning] == [
        "Model A takes images of 12×16 pixels, model B of 28×28: choose two of one size."
    ]


def test_without_any_images_of_its_size_a_model_says_what_is_missing(app, models):
    datasets.remove(models.name)
    test = app(a=A, b=B)
    said = [warning.value.replace("\\", "") for warning in test.warning]
    assert not test.exception and not test.error
    assert any(re.search(r"have 28×28 pixels, and models A and B take 12×16", words) for words in said)
    assert any(f"data add PATH --name {models.name.partition('@')[0]}" in words for words in said)
    cards = [code.value for code in test.code]
    assert len(cards) == 2 and all(f"flat, stochastic binarization (`{models.name}`)" in card for card in cards)
    assert any(link.label == "The samples of models A and B need no images" for link in test.get("page_link"))
    test = app("pages/5_Samples.py", a=A, b=B)
    assert not test.exception and not test.error and len(test.main.get("image")) == 2  # a grid of each
    for page in ("pages/7_Training.py", "pages/8_Results.py"):
        assert not app(page, a=A, b=B).exception


def test_a_data_set_of_another_size_brings_models_of_its_size(app, models):
    test = app(data=models.name)
    assert not test.exception and [title.value for title in test.title] == ["Latent-space explorer"]
    assert any("flat have 12×16 pixels, and models A and B take 28×28" in warning.value for warning in test.warning)
    test.button(key="misfit.models").click().run()
    assert not test.exception and not test.error and test.selectbox(key="data").value == models.name
    assert (test.selectbox(key="a").value, test.selectbox(key="b").value) == (A, B)
    test.selectbox(key="a").set_value("digits-small-vae-k1")
    test.selectbox(key="b").set_value("digits-small-iwae-k50").run()
    assert test.selectbox(key="data").value == "digits" and not test.exception


def test_a_page_that_ends_with_that_advice_has_its_heading(app, models):
    test = app("pages/2_Latent_space.py", data=models.name)
    assert [title.value for title in test.title] == ["Latent space"] and len(test.warning) == 1


def test_a_drawing_is_taken_as_it_is():
    drawn = np.zeros(SHAPE)
    drawn[2:5, 3:6] = 255
    np.testing.assert_array_equal(plain.drawn(drawn.ravel().tolist(), SHAPE).image, drawn / 255)
    for wrong in ([0] * 192, [1] * 10, [256] * 192):
        with pytest.raises(digits.PictureError):
            plain.drawn(wrong, SHAPE)


def test_an_upload_is_fitted_and_padded_with_its_background():
    from PIL import Image

    picture = Image.fromarray(np.full((24, 24), 51, dtype=np.uint8))
    picture.paste(255, (8, 8, 16, 16))
    image = plain.fitted(picture, SHAPE, Edit()).image
    assert image.shape == SHAPE and np.allclose(image[:, :2], 0.2) and np.allclose(image[:, -2:], 0.2)
    np.testing.assert_allclose(image[4:8, 6:10], 1)  # a third of 12 pixels, in the middle
    inverted = plain.fitted(picture, SHAPE, Edit(dark_ink=True)).image
    np.testing.assert_allclose(inverted, 1 - image, atol=1e-6)
