"""A button that downloads a report of the page."""

from typing import Any

import streamlit as st

from iwae.analysis import costs
from iwae.export import report
from pages.common import figure_card
from pages.common.evidence import draws_in_use
from pages.common.sidebar import View


def report_button(view: View, draws: report.SampledImage | None = None, **more: Any) -> None:
    """A download button for a report of everything above it; the report is built on click, within about a second.

    draws   of the digit in hand, where the page shows their numbers
    more    settings that are in no address
    """
    draws = draws or report.SampledImage(view.digit.x, *draws_in_use())
    page = {"page": st.context.url, "address": st.query_params.to_dict(), "dataset": view.dataset} | more
    shown = dict(figure_card.page_items())
    try:
        for _, entry in view.pair:
            costs.check(entry.card.model, costs.report(entry.card.model, draws.samples), "a report of these draws")
    except costs.CostError as error:
        st.caption(f"There is no report to download: {figure_card.escape_markdown(error)}.")
        return
    st.download_button(
        "Download a report of this view",
        lambda: report.build(view.pair, page, shown, draws),
        "iwae-report.zip",
        "application/zip",
        icon=":material/folder_zip:",
        key="report",
        help="A ZIP with the settings, seeds, the digit in hand with its draws, weights and bounds, figures with the "
        "numbers behind them, the cards of both models, and the commands that make them again.",
    )
