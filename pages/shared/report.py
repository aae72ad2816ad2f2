"""A button for everything about the view in one file."""

import streamlit as st
from torch import Tensor

from iwae import report
from pages.shared.sidebar import View


def report_button(view: View, x: Tensor, *, samples: int, seed: int) -> None:
    """Offers the report of image x [784] under both models; it is made when it is asked for, which takes a second."""
    page = {"page": st.context.url, "address": st.query_params.to_dict(), "dataset": view.dataset}
    st.download_button(
        "Download a report of this view",
        lambda: report.build(view.pair, x, page, samples=samples, seed=seed),
        "iwae-report.zip",
        "application/zip",
        icon=":material/folder_zip:",
        key="report",
        help="A ZIP with the settings, seeds, draws, coordinates, importance weights, bounds, pictures and figures of "
        "this image under both models, and the commands that make them again.",
    )
