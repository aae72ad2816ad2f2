"""Models that IWAE_ADAPTERS names, on every page; and what is said where none can be had."""

import pytest

from iwae.adapters import environment
from iwae.evaluation.stats import decimal
from iwae.inference.posterior import posterior
from pages.common.server import cache
from pages.frame import navigation
from tests import foreign

PAIR = {"a": "adapter:conv VAE", "b": "adapter:conv IWAE"}


@pytest.fixture
def named(monkeypatch):
    def name(*functions: str) -> None:
        monkeypatch.setenv(environment.VARIABLE, ",".join(f"tests.foreign:{function}" for function in functions))

    name("pair")
    return name


@pytest.mark.parametrize("page", [file for file, _ in navigation.PAGES])
def test_every_page_shows_them(app, named, page):
    test = app(page, **PAIR, samples="100", image="3", map="PCA", images="100")
    assert not test.exception and not test.error and not test.warning
    assert [test.selectbox(key=slot).value for slot in "ab"] == list(PAIR.values())
    assert "conv VAE · adapter" in test.selectbox(key="a").options
    text = " ".join(each.value for each in (*test.caption, *test.markdown, *test.subheader))
    assert "wrapped, 2 units · not evaluated" in text
    if page == "home.py":
        x = cache.test_images("mnist-5k", True)[3]
        own = [posterior(model, x, samples=5000) for model in foreign.pair().values()]
        assert [test.metric[place].value for place in (0, 2)] == [decimal(drawn.log_p) for drawn in own]


@pytest.mark.parametrize("section", ["Hide a part", "What stays open", "Bound against k"])
def test_sections_of_posterior(app, named, section):
    test = app("pages/1_Posterior.py", **PAIR, image="3", samples="100", posterior_section=section)
    assert not test.exception and not test.error


def test_images_of_another_shape_need_a_data_set(app, named):
    """Grey ones of 5×8 pixels: none of the data sets here has that shape, and there is no card of what is not known."""
    named("grey")
    pair = {"a": "adapter:narrow", "b": "adapter:narrow"}
    assert not app("pages/5_Samples.py", **pair).exception
    test = app("pages/1_Posterior.py", **pair)
    assert any("models A and B take 5×8" in warning.value for warning in test.warning)
    assert not any("Model card" in box.label for box in test.expander)


def test_what_a_function_raises_is_a_warning(app, named):
    named("broken", "plain")
    test = app()
    (warning,) = test.sidebar.warning
    assert warning.value.replace("\\", "") == "IWAE_ADAPTERS: tests.foreign:broken: FileNotFoundError: no weights here"
    assert "plain · adapter" in test.selectbox(key="a").options and not test.exception


def test_the_dialog_offers_neither_name_nor_removal(app, named):
    test = app(**PAIR)
    test.button(key="models").click().run()
    assert not test.exception and test.dataframe[0].value["name"].tolist()[-1] == "conv IWAE · adapter"
