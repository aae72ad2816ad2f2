"""A button that downloads a report of the page."""

from datetime import date
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from iwae import catalog
from iwae.analysis import costs
from iwae.export import report
from pages.common import figure_card
from pages.common.download import download_button
from pages.common.evidence import draws_in_use
from pages.common.sidebar import View
from pages.frame.links import kept


def report_button(view: View, draws: report.SampledImage | None = None, **more: Any) -> None:
    """A download button for a report of everything above it; the report is built on click, within about a second.

    draws   of the digit in hand, where the page shows their numbers
    more    settings that are in no address
    """
    if not view.fits:  # it is about the digit in hand
        return
    draws = draws or report.SampledImage(view.digit.x, *draws_in_use())
    here, address = (st.context.url or "").partition("?")[0], kept() | st.query_params.to_dict()
    title = st.session_state["title"]
    page = {"title": title, "page": here, "link": f"{here}?{urlencode(address)}", "address": address}
    page |= {"dataset": view.dataset} | more
    shown = dict(figure_card.page_items())
    try:
        for _, entry in view.pair:
            costs.check(entry.card.model, costs.report(entry.card.model, draws.samples), "a report of these draws")
    except costs.CostError as error:
        st.caption(f"There is no report to download: {figure_card.escape_markdown(error)}.")
        return
    models = "-vs-".join(catalog.clean_name(entry.key.partition(":")[2] or entry.key) for _, entry in view.pair)
    name = f"{title.lower().replace(' ', '-')}-{models}-{date.today()}"
    with st.container(horizontal=True):
        download_button(
            "Download a report of this view",
            lambda: report.build(view.pair, page, shown, draws),
            f"{name}.zip",
            "application/zip",
            icon=":material/folder_zip:",
            key="report",
            help="A ZIP with the settings, seeds, the digit in hand with its draws, weights and bounds, figures with "
            "the numbers behind them, the cards of both models, and the commands that make them again.",
        )
        download_button(
            "As one HTML page",
            lambda: report.build_page(view.pair, page, shown, draws),
            f"{name}.html",
            "text/html",
            icon=":material/description:",
            key="report.html",
            help="To read and to send on: the digit, samples, numbers, figures, settings and the link, in one file "
            "below 3 MB that needs no network.",
        )
