"""Models with convolutions on the pages, and in the form that trains them."""

import pytest

from iwae import catalog, checkpoints
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.evaluation.stats import decimal
from iwae.inference.posterior import posterior
from iwae.model import Model, ModelConfig
from iwae.runs import store
from iwae.training.config import TrainConfig
from pages.frame import navigation

PAIR = {"a": "model:conv-a", "b": "model:conv-b"}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two untrained ones."""
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    catalog.models_dir().mkdir(parents=True)
    for letter, objective, sizes in (("a", "vae", "4c,6c,10:2"), ("b", "iwae", "4c,8:3/6:2@relu")):
        config = TrainConfig(dataset="digits", model=sizes, objective=objective, k=5)
        model = Model(config.model_config, pixel_mean=datasets.load("digits").pixel_mean)
        checkpoints.save(catalog.models_dir() / f"conv-{letter}.safetensors", model, Card(model.config, vars(config)))


@pytest.mark.parametrize("page", [file for file, _ in navigation.PAGES])
def test_every_page_shows_them(app, models, page):
    test = app(page, **PAIR, data="digits", image="3", samples="100")
    assert not test.exception and not test.error


@pytest.mark.parametrize("section", ["Hide a part", "What stays open", "Bound against k"])
def test_sections_of_posterior(app, models, section):
    test = app("pages/1_Posterior.py", **PAIR, data="digits", image="3", samples="100", posterior_section=section)
    assert not test.exception and not test.error
    if section == "Bound against k":
        x = datasets.load("digits").binary("test")[3]
        model = checkpoints.load(catalog.models_dir() / "conv-a.safetensors")[0]
        elbo = posterior(model, x, samples=100, seed=0).elbo
        assert any(f"from {decimal(elbo, 1)} to" in caption.value for caption in test.caption)


def test_the_form_trains_one(app, monkeypatch):
    started = []
    monkeypatch.setattr(store, "start", lambda config, **_: started.append(config))
    test = app()
    test.selectbox(key="train.model").set_value("conv").run()
    test.selectbox(key="train.activation").set_value("relu").run()
    next(button for button in test.button if button.label == "Start training").click().run()
    assert not test.exception and [config.model for config in started] == ["conv@relu"]
    assert started[0].model_config == ModelConfig(((100,),), (50,), activation="relu", convolutions=(16, 32))
