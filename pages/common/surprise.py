"""How surprising the digit in hand is to a model, beside the test images of the model's own data set."""

import math
from collections.abc import Mapping

import streamlit as st

from iwae.catalog import Entry
from iwae.data import datasets
from iwae.evaluation import surprise
from iwae.inference.posterior import Posterior
from pages.common.sidebar import View

WARNED = 0.99  # of the test images: an own digit that surprises both models more may be none


def share_below(entry: Entry, drawn: Posterior) -> float | None:
    """The share of test images that surprise the entry's model less than the digit in hand does: of their −L_S and its
    own, of the first S of its draws. None for a model whose card has no quantiles, and where fewer were drawn."""
    kept = surprise.from_card(entry.card.metrics)
    if kept is None or drawn.samples < kept.samples:
        return None
    return kept.share_below(-drawn.first_log_p(kept.samples))


def caption(entry: Entry, drawn: Posterior) -> None:
    """A sentence below the model's numbers, where its card has what to compare with."""
    kept = surprise.from_card(entry.card.metrics)
    if kept is None:
        return
    data, share = entry.dataset, share_below(entry, drawn)
    if share is None:
        st.caption(f"How surprising it is beside the model's {images(data)} is known from {kept.samples:,} draws on.")
        return
    st.caption(
        f"{_in_words(share, kept.images)} {images(data)}.",
        help=f"The digit's −L_{kept.samples} among those of {kept.images:,} test images of {datasets.title(data)}: "
        "how improbable the model finds it, each of as many draws from q. The model's card holds their quantiles.",
    )


def show_doubts(view: View, drawn: Mapping[str, Posterior]) -> None:
    """What the reading of the digit in hand left in doubt; and a warning where one of the visitor's own may be none, as
    it surprises both models more than nearly all test images do. ``drawn``: its draws, by the model's name."""
    digit = view.digit
    if digit.note:
        (st.warning if digit.doubtful else st.caption)(digit.note)
    if digit.index is None and all((share_below(entry, drawn[name]) or 0) >= WARNED for name, entry in view.pair):
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
