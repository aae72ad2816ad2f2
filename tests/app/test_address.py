"""An address that is opened or gone back to says which models, data set and digit are shown."""

import pytest
import streamlit as st

from iwae import catalog
from pages.frame import links
from pages.frame.navigation import PAGES

PAGE = "pages/5_Samples.py"
A, B = catalog.FAVOURITES["1 vs 2 layers"]


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """As if a second had gone by since the last change."""
    monkeypatch.setattr(links, "SETTLING", -1.0)


def view(test) -> tuple:
    return tuple(test.selectbox(key=key).value for key in ("a", "b", "data")), test.session_state["digit.address"]


def go(test, page: str, **address: str):
    """As the browser does with Back: the same session, another page and address."""
    test.query_params.clear()
    for key, value in address.items():
        test.query_params[key] = value
    return test.switch_page(page).run()


def test_back_brings_models_data_and_digit_again(app):
    test = app(PAGE)
    first, silent = view(test), dict(test.query_params)
    assert silent == {}
    test.selectbox(key="a").set_value(A).run()
    test.selectbox(key="b").set_value(B).run()
    test.selectbox(key="data").set_value("digits").run()
    next(button for button in test.button if button.label == "Random image").click().run()
    later, address = view(test), dict(test.query_params)
    assert later[0] == (A, B, "digits") and set(address) >= {"a", "b", "data", "image"}
    test.query_params["image"] = "0"  # which a click that was made meanwhile may still send
    assert view(test.run()) == later and dict(test.query_params) == address
    assert view(go(test, "pages/7_Training.py")) == first
    assert view(go(test, PAGE, **address)) == later and dict(test.query_params) == address
    assert not test.exception


def test_a_link_to_another_page_says_everything(app):
    """Also what is shown first: a silent address stands for that, whatever was chosen before."""
    test = app(PAGE)
    links_there = [link.proto.query_string for link in test.get("page_link")]
    assert len(set(links_there)) == 1
    assert links_there[0] == f"a={catalog.DEFAULT_PAIR[0]}&b={catalog.DEFAULT_PAIR[1]}&data=mnist-5k&image=0"
    test = app(PAGE, a=A, image=7)
    assert f"a={A}&" in test.get("page_link")[0].proto.query_string
    assert test.get("page_link")[0].proto.query_string.endswith("image=7")


def test_the_links_are_there_before_the_models_are_and_never_twice(app, monkeypatch):
    """While a server that has just started still imports them, they lead to what the address asks for."""
    whole = app("home.py", a=A)
    for _ in range(2):
        assert [link.label for link in whole.sidebar.get("page_link")] == [title for _, title in PAGES]
        whole.run()
    monkeypatch.setattr("pages.common.sidebar.sidebar", lambda _: st.stop())
    first = app("home.py", a=A, samples=300)
    assert [title.value for title in first.title] == ["Latent-space explorer"] and len(first.main) == 1
    assert [link.proto.query_string for link in first.sidebar.get("page_link")] == [f"image=0&a={A}"] * len(PAGES)


def test_a_data_set_that_is_not_here_is_said(app):
    test = app(PAGE, data="omniglot")
    (warning,) = test.warning
    assert "asks for the data set omniglot" in warning.value and test.selectbox(key="data").value == "mnist-5k"
    test.selectbox(key="data").set_value("digits").run()
    assert not [one for one in test.warning if "asks for" in one.value]


def test_filters_of_the_results_stand_in_the_address(app):
    section = "Against the number of samples k"
    test = app("pages/8_Results.py", results_section=section, **{"results.data": "omniglot"})
    assert test.selectbox(key="results.data").value == "omniglot"
    test.selectbox(key="results.data").set_value("mnist").run()
    test.selectbox(key="results.model").set_value("2layer").run()
    assert not test.exception
    assert app("pages/8_Results.py", **{"results.all": "true"}).toggle(key="results.all").value
