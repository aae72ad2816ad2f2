"""Your own images in the app: picked, shown on the pages with their labels, and missed where they are gone."""

import os

import numpy as np
import pytest

from iwae.data import datasets
from iwae.data.datasets import Dataset, Options
from iwae.runs import store, worker
from iwae.training.config import TrainConfig
from tests.pictures import save_shapes


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of 200 pictures of two classes, and a VAE that was trained on them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_shapes(tmp_path / "shapes")
    name = datasets.add_path(tmp_path / "shapes", Options(size=(28, 28)))
    run = store.create(TrainConfig(name, "16:2", "vae", k=1, epochs=1))
    assert worker.work(run).phase == "finished"
    return name, f"run:{run.name}"


def test_pages_show_your_images_with_their_labels(own, app):
    name, key = own
    test = app("pages/1_Posterior.py", a=key, b=key, image=3)
    assert test.selectbox(key="data").value == name and not test.error
    test = app("pages/2_Latent_space.py", a=key, b=key, latent_space_section="Maps")
    assert test.selectbox(key="data").value == name and not test.error
    shown = "".join(figure.proto.spec for figure in test.get("plotly_chart"))
    assert "discs" in shown and "squares" in shown


def test_a_model_without_its_images_says_so_and_still_draws(own, app):
    name, key = own
    datasets.remove(name)
    for pair, whose in (({"a": key, "b": key}, "models A and B were"), ({"a": key}, "model A was")):
        test = app("pages/5_Samples.py", **pair)
        assert not test.error and test.selectbox(key="data").value == "mnist-5k"
        (absent,) = [warning.value for warning in test.sidebar.warning if "not on this machine" in warning.value]
        assert absent.startswith(f"The images that {whose} trained on, {name}, are not on this machine.")


@pytest.mark.parametrize("count", [3, 100])
def test_few_images_are_said_to_be_few(app, count):
    """One test image, and ten: too few for a map or for active units, and for UMAP."""
    images = np.random.RandomState(0).randint(0, 256, (count, 28, 28), dtype=np.uint8)
    name = datasets.add(Dataset.from_arrays(images, name="few"))
    told = [info.value for info in app("pages/2_Latent_space.py", data=name, map="UMAP").info]
    units = app("pages/3_Active_units.py", data=name)
    if count == 3:
        assert told == ["Maps need at least 2 test images; few has 1."]
        assert [info.value for info in units.info] == ["Active units need at least 2 test images; few has 1."]
    else:
        assert told[:2] == ["UMAP needs at least 16 test images on the maps, and there are 10.", "Until then: PCA."]


def test_damaged_images_are_a_sentence(app, tmp_path):
    name = datasets.add(Dataset.from_arrays(np.zeros((9, 28, 28), np.uint8), name="damaged"))
    os.truncate(tmp_path / "data" / "own" / name / "images.npy", 500)
    for page in ("home.py", "pages/4_Reconstructions.py"):
        (error,) = app(page, data=name).error
        assert "images.npy" in error.value and "data remove" in error.value
