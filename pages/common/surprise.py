"""How surprising the digit in hand is to a model, beside the test images of the model's own data set."""

import math

import streamlit as st

from iwae.analysis import costs
from iwae.analysis.costs import CostError
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.evaluation import surprise
from pages.common.server import cache
from pages.common.sidebar import View

WARNED = 0.99  # of the test images: an own digit that surprises both models more may be none
DRAWN_BY = 0  # the seed


def share_below(entry: Entry, view: View) -> float | None:
    """The share of test images that surprise the entry's model less than the digit in hand does: of their −L_S and its
    own, of as many draws. None for a model whose card has no quantiles, or that would take too long."""
    kept = surprise.from_card(entry.card.metrics)
    if kept is None:
        return None
    try:
        costs.check(entry.card.model, costs.posterior(entry.card.model, kept.samples), "a comparison")
    except CostError:
        return None
    drawn, _ = cache.posterior(entry, view.device, view.digit.x, kept.samples, DRAWN_BY)
    return kept.share_below(-drawn.log_p)


def caption(entry: Entry, view: View) -> None:
    """A sentence below the model's numbers, where its card has what to compare with."""
    share = share_below(entry, view)
    if share is None:
        return
    kept, data = surprise.from_card(entry.card.metrics), entry.dataset
    assert kept is not None  # there is a share
    st.caption(
        f"{_in_words(share, kept.images)} {images(data)}.",
        help=f"The digit's −L_{kept.samples} among those of {kept.images:,} test images of {datasets.title(data)}: "
        "how improbable the model finds it, each of as many draws from q. The model's card holds their quantiles.",
    )


def show_doubts(view: View) -> None:
    """What the reading of the digit in hand left in doubt; and a warning where one of the visitor's own may be none, as
    it surprises both models more than nearly all test images do."""
    digit = view.digit
    if digit.note:
        (st.warning if digit.doubtful else st.caption)(digit.note)
    if digit.index is None and all((share_below(entry, view) or 0) >= WARNED for _, entry in view.pair):
        st.warning(
            "This may not be a digit, or it was read wrongly: both models find it more surprising than "
            f"{WARNED:.0%} of their {images(view.a.dataset)}."
        )


def images(dataset: str) -> str:
    """What the test images of a data set are called."""
    return "test digits" if "digit" in datasets.title(dataset).lower() or "mnist" in dataset else "test images"


def _in_words(share: float, count: int) -> str:
    """``More surprising than 99% of``, with the percent rounded down."""
    if share >= 1:
        return f"More surprising than all {count:,}"
    return f"More surprising than {math.floor(100 * share)}% of"
