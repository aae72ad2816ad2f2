"""Models of grey levels on the pages: the digit reaches them as it was before it was binarized."""

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.evaluation.stats import decimal
from iwae.inference.posterior import posterior
from iwae.model import Model
from iwae.training.config import TrainConfig
from pages.common.input import digit
from pages.frame import navigation

GREY = ("model:grey-a", "model:grey-b")


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """Two untrained ones."""
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    catalog.models_dir().mkdir(parents=True)
    for seed, objective in enumerate(("vae", "iwae")):
        config = TrainConfig(dataset="digits", model="8:2@discretized-logistic", objective=objective, k=5)
        model = Model(config.model_config, pixel_mean=datasets.load("digits").pixel_mean, seed=seed)
        card = Card(model.config, vars(config))
        checkpoints.save(catalog.models_dir() / f"grey-{'ab'[seed]}.safetensors", model, card)


@pytest.mark.parametrize("page", [file for file, _ in navigation.PAGES])
def test_every_page_shows_them(app, page):
    test = app(page, a=GREY[0], b=GREY[1], data="digits", image="3", samples="100")
    assert not test.exception and not test.error


def test_the_numbers_are_of_the_grey_digit(app):
    section = {"posterior_section": "Bound against k"}
    test = app("pages/1_Posterior.py", a=GREY[0], b=GREY[1], data="digits", image="3", samples="100", **section)
    x = datasets.load("digits").test.images[3].float() / 255
    model = checkpoints.load(catalog.models_dir() / "grey-a.safetensors")[0]
    elbo = posterior(model, x, samples=100, seed=0).elbo
    assert any(f"from {decimal(elbo, 1)} to" in caption.value for caption in test.caption)


def test_models_of_two_kinds_are_not_compared(app):
    test = app(a=GREY[0], b="digits-small-vae-k1", data="digits")
    assert [warning.value for warning in test.warning] == [
        "Model A takes grey levels, model B pixels of zeros and ones: choose two of one kind."
    ]


def test_a_link_carries_grey_levels():
    grey = (torch.rand(784, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    text = digit.pack(grey, (28, 28))
    assert len(text) == 1053 and torch.equal(digit.unpack(text)[0], grey)
    linked = digit._linked(grey, (28, 28))
    assert torch.equal(linked.as_input(binary=False).x, grey)
    assert set(linked.x.unique().tolist()) == {0.0, 1.0} and linked.as_input(binary=True) is linked
