"""Section of Home: what an IWAE is said to do better and worse, asked of the two models at hand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from iwae.inference.posterior import Posterior
from pages.common.reading import plus_minus
from pages.common.sidebar import View
from pages.frame.links import page_link

WIDTH = 172  # CSS pixels of a card
LINKS = {  # each with a name of its own, for screen readers
    "pages/1_Posterior.py": "See its draws",
    "pages/2_Latent_space.py": "See the maps",
    "pages/3_Active_units.py": "See the units",
    "pages/4_Reconstructions.py": "See pictures",
    "pages/6_Bounds.py": "See bounds",
}


@dataclass(frozen=True)
class Claim:
    """A question about B, with the numbers that answer it."""

    question: str
    answer: str
    numbers: str
    page: str
    icon: str


def show_claims(view: View, drawn: Mapping[str, Posterior]) -> None:
    """A card for each claim, with its number and a link to the page that shows why."""
    with st.container(horizontal=True, key="claims"):
        for claim in claims(view, drawn):
            with st.container(border=True, width=WIDTH, height="stretch", gap="xsmall"):
                st.markdown(f"{claim.question}  \n**{claim.answer}**")
                st.caption(claim.numbers)
                page_link(claim.page, LINKS[claim.page], claim.icon)


def claims(view: View, drawn: Mapping[str, Posterior]) -> list[Claim]:
    """The answers: of the test images by the models' cards, the spread by the draws of the digit in hand."""
    sizes = [len(drawn[name].std) for name in "AB"]
    spread = [drawn[name].std.square().sum().item() for name in "AB"]
    wider = f"No: {sizes[0]} and {sizes[1]} units do not compare"
    if sizes[0] == sizes[1]:
        wider = answer(spread[1] - spread[0], None)
    units = [entry.card.metrics.get("active_units") for _, entry in view.pair]
    counts = [None if unit is None else sum(unit) for unit in units]
    more, active = "Not measured", "Active units are not on both cards"
    if None not in counts:
        more, active = answer(counts[1] - counts[0], None), f"Active: B {counts[1]}, A {counts[0]}"
    return [
        _of_card(view, "Does B have the tighter bound?", "nll", "NLL", -1, "pages/6_Bounds.py", "stacked_line_chart"),
        _of_card(view, "Does q of B miss more?", "kl_posterior", "D_KL(q‖p)", 1, "pages/1_Posterior.py", "blur_on"),
        Claim("Does B use more units?", more, active, "pages/3_Active_units.py", "bar_chart"),
        Claim("Does q of B spread wider?", wider, f"tr Σ of this digit: B {spread[1]:.3g}, A {spread[0]:.3g}",
              "pages/2_Latent_space.py", "scatter_plot"),
        _of_card(view, "Does B reconstruct worse?", "reconstruction", "Loss", 1, "pages/4_Reconstructions.py",
                 "compare"),
    ]  # fmt: skip


def _of_card(view: View, question: str, key: str, title: str, sign: int, page: str, icon: str) -> Claim:
    cards = [entry.card.metrics for _, entry in view.pair]
    if any(key not in card for card in cards):
        return Claim(question, "Not measured", f"{title} is not on both cards", page, icon)
    a, b = (card[key] for card in cards)
    errors = [card.get(f"{key}_se") for card in cards]
    numbers = f"{title}, nats: B {plus_minus(b, errors[1])}, A {plus_minus(a, errors[0])}"
    if view.a.dataset != view.b.dataset:
        return Claim(question, "Not comparable: other data", numbers, page, icon)
    error = None if None in errors else math.hypot(*errors)
    return Claim(question, answer(sign * (b - a), error), numbers, page, icon)


def answer(difference: float, error: float | None) -> str:
    """Yes where B has more than A, at two standard errors."""
    if error is not None and abs(difference) <= 2 * error:
        return "Too close to call"
    return "Yes" if difference > 0 else "No" if difference < 0 else "Equal"
