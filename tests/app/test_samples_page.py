"""The page of samples: its pictures are the engine's, and what cannot be shown says what to do."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from iwae import catalog
from iwae.analysis import generation
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.figures import base
from tests.app import TWO_LAYERS, open_section

PAGE = "pages/5_Samples.py"
PLANE, WAY = "The plane of two units", "From one digit to another"  # its sections
FLAT = {"a": "mnist-2d-vae-k1", "b": "mnist-2d-iwae-k50"}


def words(test) -> str:
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "error")
    return "\n".join(str(getattr(element, "value", "")) for kind in kinds for element in test.get(kind))


def pictures(test) -> list[list[tuple[np.ndarray, str]]]:
    """The pixels and the caption of each picture, row by row."""
    return [[(pixels(one.url), one.caption) for one in row.proto.imgs] for row in test.get("image")]


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))))


@pytest.fixture
def models():
    found, _ = catalog.entries()
    return lambda *keys: [load(found[key].path)[0] for key in keys]


def test_samples_of_both_models_from_one_seed(app, models):
    shown = pictures(app(PAGE, seed=3, count=20))
    for place, model in enumerate(models(*catalog.DEFAULT_PAIR)):
        np.testing.assert_array_equal(
            shown[place][0][0], base.image_grid(generation.sample_images(model, 20, 3).reshape(-1, 28, 28), 10)
        )


def test_another_seed_gives_other_samples(app):
    test = app(PAGE, count=20)
    before = pictures(test)[0][0][0]
    test.number_input(key="seed").set_value(5).run()
    assert not test.exception and not np.array_equal(pictures(test)[0][0][0], before)


def test_the_plane_is_shown_or_says_what_to_choose(app, models):
    test = app(PAGE, samples_section=PLANE, a=FLAT["a"], side=7)
    shown = [pixels for ((pixels, _), *rest) in pictures(test) if not rest and pixels.shape == (392, 392)]
    assert len(shown) == 1  # of A; B has 50 units
    np.testing.assert_array_equal(
        shown[0], base.image_grid(generation.manifold(models(FLAT["a"])[0], 7).reshape(-1, 28, 28), 7, gap=0)
    )
    assert "The top layer of model B has 50 units, and a plane needs 2" in words(test)
    test.button(key="samples.show.B").click().run()
    assert not test.exception and test.selectbox(key="b").value == FLAT["b"]
    assert "plane needs 2" not in words(test)


def test_the_way_between_two_digits(app, models):
    x = datasets.load("mnist-5k").binary("test")
    test = app(PAGE, samples_section=WAY, image=4, to=9, steps=6)
    rows = [row for row in pictures(test) if len(row) == 6 and row[0][1] == "0%"]
    assert [caption for _, caption in rows[0]] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    for row, model in zip(rows, models(*catalog.DEFAULT_PAIR), strict=True):
        for (shown, _), picture in zip(row, generation.interpolate(model, x[[4, 9]], 6), strict=True):
            np.testing.assert_array_equal(shown, base.tile(picture.view(28, 28).numpy(), 84))


def test_without_the_training_images_says_how_to_get_them(app):
    assert "python -m iwae data download mnist" in words(app(PAGE))


def test_nearest_training_images_of_two_layers(app, trained):
    """A user's model, with two layers, trained on digits, whose training images are at hand."""
    key = f"run:{trained(TWO_LAYERS).name}"
    test = app(PAGE, b=key, sample=2, count=10)
    model, data = load(catalog.entries()[0][key].path)[0], datasets.load("digits")
    sample = generation.sample_images(model, 10, 0)[1]
    near = generation.nearest(sample[None], data.train.images, 9)
    row = next(row for row in pictures(test) if row[0][1] == "the sample")
    assert [caption for _, caption in row[1:]] == [f"{distance:.2f}" for distance in near.distance[0].tolist()]
    np.testing.assert_array_equal(row[0][0], base.tile(sample.view(28, 28).numpy(), 84))
    np.testing.assert_array_equal(
        row[1][0], base.tile(data.train.images[near.index[0, 0]].view(28, 28).numpy() / 255, 84)
    )
    usual = generation.nearest(
        generation.reconstructions(model, data.binary("test")[:100]), data.train.images
    ).distance.median()
    assert f"Nearest of {len(data.train):,} training images" in words(test) and f"lies at {usual:.2f}" in words(test)


def test_numbers_that_a_smaller_choice_lacks(app):
    """Sample 40 of 50, then 10 samples; image 9,000 of MNIST, then the 500 of mnist-5k."""
    test = app(PAGE, sample=40)
    test.slider(key="count").set_value(10).run()
    assert not test.exception and not test.error and test.slider(key="sample").value <= 10
    test.session_state["to"] = test.session_state["to in use"] = 9000
    open_section(test, WAY)
    assert not test.exception and not test.error and test.number_input(key="to").value < 500
