"""How much a page explains: the switch of the sidebar between a simple view and a full one, and the glossary."""

import re

import streamlit as st

from iwae.evaluation import stats
from pages.frame import links

KEY = "simple"
TERMS = {
    "nats": "The unit of all log-probabilities here: natural logarithms. One nat more means e ≈ 2.7 times as probable; "
    "1 nat is 1.44 bits.",
    "ELBO": "The mean log-weight of draws from q, a lower bound on log p(x). It lies below by D_KL from q(h|x) to the "
    "true posterior.",
    "L_k": "The IWAE bound: the logarithm of the mean of k importance weights, averaged over sets of k draws. "
    "L_1 is the ELBO, and L_k rises with k towards log p(x).",
    "NLL": "Negative log-likelihood, −log p̂(x), in nats per image: how improbable a model finds an image. Lower is "
    "better.",
    "importance weight": "w = p(x, h) / q(h|x): how much a draw h from q counts. The w̃ are weights divided by their "
    "sum.",
    "ESS": "Effective sample size, (Σw)²/Σw²: how many equally weighted draws from the true posterior the weighted "
    "draws from q are worth. Few means that q misses it.",
    "k̂": "Pareto k̂: how heavy the tail of the weights is, from the largest of them. Up to 0.5 the standard error of "
    "log p̂(x) holds; above 0.7 a few draws decide, and the estimate is only a lower bound.",
    "D_KL": "Kullback–Leibler divergence, in nats: how far one distribution lies from another. It is 0 only where both "
    "are equal. Of q(h|x) from the prior, it is what the code says about the image.",
    "tr Σ": "The trace of the covariance of q(h₁|x): the sum of its variances over the units, which is how widely one "
    "posterior spreads.",
    "active unit": "A latent unit whose posterior mean varies between images by more than 0.01 (variance). The model "
    "leaves the others at the prior, where they say nothing about the image.",
    "standard error": "The ± behind a number: by how much it would vary from one sample of images or draws to the "
    "next, as a standard deviation.",
}


def simple() -> bool:
    """Whether formulas, tables of numbers and standard errors are folded away."""
    return bool(st.session_state.get(KEY, False))


def plus_minus(value: float, se: float | None, digits: int | None = 2, sign: bool = False) -> str:
    """``stats.plus_minus``, without the standard error in the simple view."""
    return without_errors(stats.plus_minus(value, se, digits, sign))


def without_errors(text: str) -> str:
    """``NLL 87.88 nats`` of ``NLL 87.88 ± 0.23 nats``, and no "± standard error", in the simple view; else the text."""
    return re.sub(r",? ± (standard error|[\d.,]+)", "", text) if simple() else text


def epochs(count: float) -> str:
    """``1 epoch``, ``2.5 epochs``."""
    return f"{count:.4g} epoch" + "s" * (count != 1)


def switch() -> None:
    """The switch, for the sidebar. The address holds it."""
    asked = {KEY: "true"} if st.query_params.get(KEY) == "true" else {}
    st.session_state[KEY] = bool(asked) if links.asked(KEY, asked) else simple()
    st.toggle(
        "Simple view",
        key=KEY,
        persist_state="session",
        on_change=links.changed,
        args=(KEY,),
        help="Hides formulas, tables of numbers and standard errors.",
    )
    links.wrote(KEY, {KEY: "true"} if simple() else {}, (KEY,))


def formulas(title: str, *latex: str, text: str = "") -> None:
    """Formulas one below the other and what they mean, behind their title; nothing in the simple view."""
    if simple():
        return
    with st.expander(title):
        for formula in latex:
            st.latex(formula)
        if text:
            st.write(text)


def glossary(*terms: str) -> None:
    """A button that opens what these terms mean, as far as they are on the page."""
    terms = tuple(term for term in terms if term != "standard error" or not simple())
    with st.popover(f"What is meant by {', '.join(terms)}?", type="tertiary"):
        for term in terms:
            st.markdown(f"**{term}**: {TERMS[term]}")
