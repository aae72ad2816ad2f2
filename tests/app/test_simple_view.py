"""The claims on Home, the simple view, and the glossary."""

import re

import pytest

from iwae import catalog
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.inference import posterior as engine
from pages.common.reading import TERMS
from pages.home.claims import answer
from tests.app.test_samples_page import words

PAGE = "pages/6_Bounds.py"


def test_the_claims_are_answered_by_the_numbers_of_the_cards_and_of_the_digit(app):
    test = app()
    a, b = (catalog.entries()[0][key] for key in catalog.DEFAULT_PAIR)
    x, said = datasets.load("mnist-5k").binary("test")[0], words(test)
    assert (
        f"NLL, nats: B {b.card.metrics['nll']:.2f} ± " in said and "Does B have the tighter bound?  \n**Yes**" in said
    )
    assert f"Active: B {sum(b.card.metrics['active_units'])}, A {sum(a.card.metrics['active_units'])}" in said
    spread = [engine.posterior(load(e.path)[0], x, samples=100).std.square().sum().item() for e in (b, a)]
    assert f"tr Σ of this digit: B {spread[0]:.3g}, A {spread[1]:.3g}" in said
    turned = words(app(a=catalog.DEFAULT_PAIR[1], b=catalog.DEFAULT_PAIR[0]))
    assert "Does B have the tighter bound?  \n**No**" in turned and "Does B reconstruct worse?  \n**No**" in turned
    plane = words(app(b="mnist-2d-iwae-k50"))
    assert "50 and 2 units do not compare" in plane
    other = words(app(b="omniglot-1layer-iwae-k50"))
    assert "Does B have the tighter bound?  \n**Not comparable: other data**" in other


def test_two_standard_errors_decide():
    assert [answer(d, 1.0) for d in (2.1, 1.9, -1.9, -2.1)] == ["Yes", "Too close to call", "Too close to call", "No"]
    assert [answer(d, None) for d in (1.0, 0.0, -1.0)] == ["Yes", "Equal", "No"]


def test_the_simple_view_folds_formulas_tables_and_errors_and_stays(app):
    full = app(PAGE, samples=300, bounds_section="Every bound")
    assert full.latex and "±" in words(full) and [box for box in full.expander if box.label == "In numbers"]
    test = app(PAGE, samples=300, bounds_section="Every bound", simple="true")
    assert not test.latex and not test.code and not [box for box in test.expander if box.label == "In numbers"]
    numbers = re.findall(r"\| [^|]+ \| (−[\d.]+)(.*?) \|", words(test))
    assert len(numbers) >= 8 and not any("±" in rest for _, rest in numbers)
    assert numbers[0][0] in words(full)  # the same numbers
    assert "standard error" not in words(test)
    test.switch_page("pages/5_Samples.py").run()
    assert test.toggle(key="simple").value and not test.exception


@pytest.mark.parametrize(
    ("page", "section"),
    [
        ("home.py", {}), ("pages/1_Posterior.py", {}),
        ("pages/2_Latent_space.py", {"map": "PCA", "latent_space_section": "Does B spread more?"}),
        ("pages/3_Active_units.py", {"active_units_section": "One unit at a time"}),
        ("pages/4_Reconstructions.py", {"reconstructions_section": "Over the test set"}),
        ("pages/8_Results.py", {"results_section": "Against the number of samples k"}),
    ],
)  # fmt: skip
def test_no_page_says_a_standard_error_in_the_simple_view(app, page, section):
    told = [words(test) + "\n".join(metric.delta for metric in test.metric) for test in (
        app(page, **section), app(page, **section, simple="true"),
    )]  # fmt: skip
    assert "±" in told[0] and "±" not in told[1]


def test_a_term_means_the_same_wherever_it_is_explained(app):
    for page in ("home.py", PAGE):
        assert f"**nats**: {TERMS['nats']}" in words(app(page))
