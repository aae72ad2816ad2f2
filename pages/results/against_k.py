"""Section of the page of results: measured and published values against the number of samples k."""

from collections.abc import Sequence

import streamlit as st

from iwae.catalog import LAYERS
from iwae.evaluation.stats import decimal
from iwae.figures.base import points_against_k
from iwae.results import rows as results
from iwae.results import tables
from iwae.results.rows import Row
from pages.common import figure_card, reading
from pages.common.sections import beside


def against_k(rows: Sequence[Row], missing: Sequence[Row], usual: str) -> None:
    """NLL and reconstruction loss of one architecture on one data set, at first ``usual``."""
    left, right = st.columns(2)
    places = list(dict.fromkeys((row.cell.dataset, row.cell.model) for row in [*rows, *missing]))
    names = list(dict.fromkeys(dataset for dataset, _ in places))
    first = names.index(usual) if usual in names else 0
    dataset = left.selectbox("Data set of the figures", names, first, key="results.data", bind="query-params")
    models = [model for name, model in places if name == dataset]
    model = right.selectbox(
        "Architecture", models, format_func=lambda model: LAYERS.get(model, model), key="results.model",
        bind="query-params",
    )  # fmt: skip
    for column, (measure, title) in zip(
        beside(), (("nll", "NLL"), ("reconstruction", "reconstruction loss")), strict=True
    ):
        points = results.against_k(rows, dataset, model, measure)
        with column:
            heading = title[0].upper() + title[1:]
            st.markdown(f"**{heading}**, nats per image")
            if not points:
                st.info("Neither measured nor published for VAE and IWAE.")
                continue
            caption = (
                f"{heading} against k on {dataset}, {LAYERS.get(model, model)}. Filled: measured"
                + ", ± standard error over test images, which is the uncertainty of the level and not of a difference"
                * (not reading.simple())
                + ". Hollow: published, by "
                "source, without errors."
            )
            lowest = min(points, key=lambda part: min(part.y))
            takeaway = f"The lowest is {decimal(min(lowest.y))} nats: {lowest.name}."
            drawn = points_against_k(points, f"{title}, nats")
            figure_card.figure(drawn, f"results.{measure}", caption, tables.points(title, points), takeaway)
    reading.glossary("nats", "NLL", "standard error")
