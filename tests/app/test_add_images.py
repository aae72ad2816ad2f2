"""“Add images …” in the app: previewed, refused in a sentence, added, chosen, trained on, and removed again."""

import io

import numpy as np
import pytest

from iwae.data import datasets
from iwae.runs import store
from iwae.training.config import TrainConfig
from tests.pictures import save_shapes, zipped
from tests.test_uploaded_images import png


@pytest.fixture
def shapes(tmp_path) -> bytes:
    """A ZIP of 200 pictures in two folders."""
    save_shapes(tmp_path / "shapes")
    return zipped(tmp_path / "shapes")


def opened(app, *files: tuple[str, bytes], key: str = "data.add"):
    """Home with the dialog, and these files in it."""
    test = again(app(), key)
    for name, content in files:
        test.file_uploader(key="images.files").upload(name, content)
    return again(test, key)


def again(test, key: str = "data.add"):
    """Run the page with its dialog open: AppTest runs all of it, where a browser runs the dialog alone."""
    test.button(key=key).click().run()
    assert not test.exception
    return test


def words(test) -> str:
    return " ".join(element.value for kind in ("markdown", "caption") for element in test.get(kind)).replace("\\", "")


@pytest.mark.parametrize("key", ["data.add", "train.add"])
def test_a_zip_is_previewed_added_and_chosen(app, shapes, tmp_path, key):
    test = opened(app, ("My Shapes.zip", shapes), key=key)
    said = words(test)
    assert "200 images of 16×16 pixels**: 160 to train, 20 to validate, 20 to test" in said
    assert "**2 classes**: discs (100), squares (100)" in said
    assert test.text_input(key="images.name.my-shapes").value == "my-shapes"
    assert not (tmp_path / "data").exists()  # nothing is kept before it is added
    test.button(key="images.add").click()
    name = again(test, key).selectbox(key="data").value
    assert name == datasets.add_path(tmp_path / "shapes", name="my-shapes")  # the same content
    assert test.selectbox(key="train.dataset").value == name
    assert any("have 16×16 pixels, and models A and B take 28×28" in warning.value for warning in test.warning)
    assert any("Train one on" in info.value for info in test.info)
    assert test.selectbox(key="data").options[-1] == "my-shapes · 16×16"


def test_options_reach_the_data_set(app, shapes):
    test = opened(app, ("shapes.zip", shapes))
    test.selectbox(key="images.size").set_value("28×28")
    test.segmented_control(key="images.pixels").set_value("binarized once")
    test.toggle(key="images.invert").set_value(True)
    again(test).slider(key="images.threshold").set_value(0.6)
    test.button(key="images.add").click()
    data = datasets.load(again(test).selectbox(key="data").value)
    assert data.shape == (28, 28) and not data.stochastic and data.train.images[:, 0].eq(255).all()
    assert not test.error and not any("pixels" in warning.value for warning in test.warning)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([("a.png", b"no picture")], "a.png is not a picture"),
        ([("a.png", png(9, 9)), ("b.png", png(8, 9))], "give a size to bring them to"),
        ([("![x](y).npy", b"")], "![x](y).npy is damaged, or not what its name says"),
    ],
)
def test_a_refusal_is_a_sentence_and_keeps_nothing(app, tmp_path, files, says):
    test = opened(app, *files)
    (error,) = test.error
    assert says in error.value.replace("\\", "") and "![x](" not in error.value
    assert not any(button.key == "images.add" for button in test.button) and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "says"), [("../up", "has 1 to 40 small letters"), ("mnist", "mnist is the name of a published data set")]
)
def test_a_name_that_cannot_be_is_refused(app, name, says):
    test = opened(app, ("a.npy", saved(np.eye(8, dtype=np.uint8)[None].repeat(9, 0))))
    test.text_input(key="images.name.a").set_value(name)
    assert says in again(test).error[0].value


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_it_is_removed_again_unless_a_run_needs_it(app, tmp_path, monkeypatch):
    save_shapes(tmp_path / "shapes")
    name = datasets.add_path(tmp_path / "shapes")
    run = store.create(TrainConfig(name, "8:2", k=1, epochs=1))
    test = app(data=name)
    monkeypatch.setattr("pages.common.sidebar.alive_runs", lambda: [run])
    test.button(key="images.remove").click().run()
    assert name in datasets.names() and "is training on it: stop it first" in test.error[0].value
    monkeypatch.setattr("pages.common.sidebar.alive_runs", list)
    test.button(key="images.remove").click().run()
    assert name not in datasets.names() and test.selectbox(key="data").value == "mnist-5k" and not test.exception


def test_published_data_and_public_demos_have_no_such_buttons(app, monkeypatch):
    assert not any(button.key == "images.remove" for button in app().button)
    monkeypatch.setenv("IWAE_READ_ONLY", "1")
    assert not any(button.key in ("data.add", "train.add", "images.remove") for button in app().button)
