"""The page of bounds: every number is the engine's, for any pair of models."""

import inspect
import json

import numpy as np
import pytest

from iwae import bounds, catalog
from iwae.bounds import Bound
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.inference import estimates
from iwae.inference import exact_posterior as planes
from iwae.inference import posterior as engine
from pages.common.figure_card import escape_markdown
from tests.app import TWO_LAYERS, open_section, open_tables
from tests.app.test_samples_page import FLAT, pictures, words

PAGE = "pages/6_Bounds.py"
EVERY, STEP, EXACT = "Every bound", "One step of training", "The exact posterior"  # its sections


def figure(test, place: int = 0) -> dict:
    return json.loads(test.get("plotly_chart")[place].proto.spec)


def nats(value: float, error: float) -> str:
    return f"{value:.2f}\u00a0±\u00a0{error:.2f}".replace("-", "−")


def evidence(part) -> str:
    """log p̂(x) with an error where k̂ allows one, else a bound in words."""
    if part.k_hat <= 0.5:
        return nats(part.log_p, part.log_p_se)
    decide = "1 draw decides" if part.carrying() == 1 else f"{part.carrying()} draws decide"
    return f"at least\u00a0{part.log_p:.2f} ({decide})".replace("-", "−")


def drawn(*keys, image=0, samples=600, seed=0, data="mnist-5k"):
    found, _ = catalog.entries()
    x = datasets.load(data).binary("test")[image]
    return [engine.posterior(load(found[key].path)[0], x, samples=samples, seed=seed) for key in keys]


def test_every_bound_with_its_error(app):
    typed = {"power-mean.p": 1.5, "l-alpha.alpha": 3.0, "renyi.alpha": 0.25, "ciwae.beta": 0.75, "miwae.factors": "4×5"}
    test = app(PAGE, bounds_section=EVERY, samples=600, seed=3, image=7, k=20, **typed)
    expected = [
        Bound("vae"),
        Bound("iwae"),
        Bound("power-mean", {"p": 1.5}),
        Bound("median"),
        Bound("l-alpha", {"alpha": 3.0}),
        Bound("renyi", {"alpha": 0.25}),
        Bound("ciwae", {"beta": 0.75}),
        Bound("miwae", {"k1": 4, "k2": 5}),
    ]
    chart = figure(test)["data"]
    for place, part in enumerate(drawn(*catalog.DEFAULT_PAIR, image=7, seed=3)):
        found = [estimates.estimate(part, bound, 20) for bound in expected]
        assert chart[place]["x"] == pytest.approx([one.value for one in found])
        assert chart[place]["error_x"]["array"] == pytest.approx([one.error for one in found])
        for one in found:
            assert nats(one.value, one.error) in words(test)
        assert evidence(part) in words(test)
    assert "averaged over 30 disjoint groups of the 600 samples (seed 3)" in words(test)
    assert "which may exceed it: Power mean p = 1.5, Median." in words(test)


def test_the_log_weights(app):
    test = app(PAGE, samples=600, image=7)
    data = figure(test)["data"]
    parts = drawn(*catalog.DEFAULT_PAIR, image=7)
    for part, histogram, draws, weight in zip(parts, estimates.histograms(parts), data, data[2:], strict=False):
        assert draws["x"] == pytest.approx(histogram.centres.tolist())
        assert draws["y"] == pytest.approx(histogram.draws.tolist()) and sum(draws["y"]) == pytest.approx(1)
        assert weight["y"] == pytest.approx(histogram.weight.tolist()) and sum(weight["y"]) == pytest.approx(1)
        assert evidence(part) in words(test)


@pytest.mark.parametrize("name", bounds.OBJECTIVES)
def test_a_step_and_the_source_of_each_bound(app, name):
    test = app(PAGE, bounds_section=EVERY, samples=600)
    test.selectbox(key="objective").set_value(name).run()
    test.number_input(key="k").set_value(10).run()
    assert not test.exception and test.code[0].value == inspect.getsource(bounds.OBJECTIVES[name].function).strip()
    row = bounds.OBJECTIVES[name]
    assert any(row.formula in each.value for each in test.latex) and escape_markdown(row.source) in words(test)
    given = {each: parameter.default for each, parameter in row.parameters.items()}
    given |= dict(zip(row.factors, map(int, test.selectbox(key="miwae.factors").value.split("×")), strict=False))
    open_section(test, STEP)
    test.number_input(key="step").set_value(3).run()
    assert not test.exception and test.selectbox(key="objective").value == name
    shown = [row for row in pictures(test) if len(row) == 10]
    open_tables(test, "bounds.step.A", "bounds.step.B")
    tables = [frame.value for frame in test.dataframe if "share of the gradient" in frame.value]
    for part, row, table in zip(drawn(*catalog.DEFAULT_PAIR), shown, tables, strict=True):
        taken = estimates.step(part, Bound(name, given), 10, 2)
        assert sorted(table["draw"]) == list(range(21, 31))
        order = (table["draw"] - 21).to_numpy()
        assert list(table["share of the gradient"]) == pytest.approx(taken.gradient.numpy()[order])
        assert list(table["w̃"]) == pytest.approx(taken.normalised.numpy()[order])
        assert (np.diff(table["share of the gradient"]) <= 0).all()
        assert row[0][1].startswith(f"{taken.log_w[order[0]]:.2f}".replace("-", "−"))
        assert f"The bound of these 10 draws is {taken.bound:.2f}".replace("-", "−") in words(test)


def test_other_k_leave_no_choice_behind_that_does_not_fit(app):
    test = app(PAGE, bounds_section=STEP, objective="miwae", samples=600, k=20)
    test.selectbox(key="objective").set_value("miwae").run()
    test.selectbox(key="miwae.factors").set_value("5×4").run()
    test.number_input(key="step").set_value(30).run()
    test.number_input(key="k").set_value(7).run()
    test.number_input(key="samples").set_value(100).run()
    assert not test.exception and not test.error
    assert (
        test.selectbox(key="miwae.factors").value in ("1×7", "7×1") and test.number_input(key="step").value <= 100 // 7
    )


def test_the_exact_posterior_in_the_plane(app):
    test = app(PAGE, bounds_section=EXACT, **FLAT, data="digits", image=11, samples=2000)
    assert len(test.get("plotly_chart")) == 2
    found, _ = catalog.entries()
    parts = drawn(*FLAT.values(), image=11, samples=2000, data="digits")
    for place, (key, part) in enumerate(zip(FLAT.values(), parts, strict=True)):
        exact = planes.plane(load(found[key].path)[0], part)
        said = f"log p(x) = {exact.log_p:.2f} on the grid".replace("-", "−")
        assert said in words(test) and f"= {exact.kl:.2f} nats" in words(test)
        points = figure(test, place)["data"][-3]
        assert sum(points["customdata"]) == 2000 and points["type"] == "scatter"
    assert "q's draws miss where the posterior is" in words(test)  # the VAE, of this digit: 22 nats too low
    test.toggle(key="scale").set_value(True).run()
    widths = [np.ptp(figure(test, place)["layout"]["xaxis"]["range"]) for place in (0, 1)]
    assert widths[0] == pytest.approx(widths[1])


def test_mixed_pairs(app, trained):
    """A plane against 50 units, and against two layers of a user's model: each that cannot be shown says why."""
    test = app(PAGE, bounds_section=EXACT, a=FLAT["a"], samples=300)
    assert len(test.get("plotly_chart")) == 1
    assert "Model B: a plane needs one stochastic layer of 2 units, not 50" in words(test)
    test.button(key="bounds.show.B").click().run()
    assert len(test.get("plotly_chart")) == 2 and test.selectbox(key="b").value == FLAT["b"]
    test = app(PAGE, bounds_section=EXACT, a=FLAT["a"], b=f"run:{trained(TWO_LAYERS).name}", samples=300)
    assert "Model B: a plane needs one stochastic layer of 2 units, not 6 and 2" in words(test)


def test_the_address_holds_every_choice(app):
    test = app(
        PAGE,
        bounds_section=EVERY,
        samples=300,
        k=20,
        objective="Median",
        **{"miwae.factors": "5×4", "power-mean.p": -1},
    )
    assert test.selectbox(key="miwae.factors").value == "5×4" and test.selectbox(key="objective").value == "median"
    assert "MIWAE k1 = 5, k2 = 4" in words(test) and "p = -1" in words(test)
    test = app(PAGE, bounds_section=EVERY, objective="none", **{"miwae.factors": "3×x", "power-mean.p": "much"})
    assert not test.error and len(test.get("plotly_chart")) == 1
    test = app(PAGE, bounds_section=STEP, samples=300, k=20, step=4)
    assert test.number_input(key="step").value == 4
    test = app(PAGE, bounds_section=STEP, samples=7, k=0, step=10**9)
    assert [error.value.split(" ")[0] for error in test.error] == ["7", "0", "1000000000"]  # samples, k and step
