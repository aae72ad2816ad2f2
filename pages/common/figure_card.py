"""A figure with its caption, its numbers as a table, and downloads of both; and escaping of untrusted text."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from iwae.export.report import PageItem
from iwae.figures import base
from pages.common import reading
from pages.common.download import download_button

_ITEMS, _VECTORS = "figures here", "svg"  # in the session
ROWS = 1000  # of a table on the page; the file has all
Numbers = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]  # a record per row, or a sequence per column


def figure(
    drawn: go.Figure, key: str, caption: str, numbers: Numbers, takeaway: str = "", **options: Any
) -> Any:  # fmt: skip
    """Show a figure, one sentence of what it shows, and the table behind it; returns plotly's selection event.

    key       names the widget and, with "." as "-", the files to download
    caption   shown below the figure, and read by screen readers instead of it
    takeaway  what the numbers say, in one sentence above the figure
    options   of ``st.plotly_chart``, such as ``on_select`` and ``selection_mode``
    """
    name, caption = file_name(key), reading.without_errors(caption)
    image = {"filename": name} | ({"format": "svg"} if _vectors() else {"format": "png", "scale": 2})
    config = {"displaylogo": False, "toImageButtonOptions": image}
    if takeaway:
        st.markdown(f"**{takeaway}**")
    shown = base.without_webgl(drawn) if _vectors() else drawn
    event = st.plotly_chart(shown, width="stretch", key=key, config=config, alt=caption, **options)
    st.caption(caption)
    data_table(numbers, key)
    page_items()[name] = page_items()[name]._replace(caption=caption, figure=drawn)
    return event


def vector_switch() -> None:
    """A switch for the sidebar: whether the camera above each figure saves it as SVG instead of PNG."""
    st.toggle(
        "Figures as SVG",
        key=_VECTORS,
        persist_state="session",
        help="The camera above a figure saves it as PNG; with this as SVG, for papers: lines, points and text that can "
        "be edited. Maps of thousands of images are then slower.",
    )


def _vectors() -> bool:
    return bool(st.session_state.get(_VECTORS))


def data_table(numbers: Numbers, key: str, title: str = "In numbers") -> None:
    """A collapsed table of the first 1,000 rows, with all rows as a CSV file."""
    name = file_name(key)

    def csv() -> str:
        return pd.DataFrame(numbers).to_csv(index=False)

    if not reading.simple():
        _table(numbers, key, title, csv)
    page_items()[name] = PageItem(title, csv=csv)


@st.fragment
def _table(numbers: Numbers, key: str, title: str, csv: Callable[[], str]) -> None:
    """Built only when it is opened, in a fragment: most users never open it."""
    with st.expander(title, key=f"{key}.table", on_change="rerun") as box:
        if not box.open:
            return
        table = pd.DataFrame(numbers)
        st.dataframe(table.head(ROWS), hide_index=True, placeholder="–")
        if len(table) > ROWS:
            st.caption(f"The first {ROWS:,} of {len(table):,} rows; the file has all.")
        download_button("Download as CSV", csv, f"{file_name(key)}.csv", "text/csv", f"{key}.csv")


def file_name(key: str) -> str:
    """The file name of the download of widget ``key``, without suffix."""
    return key.replace(".", "-")


def reset() -> None:
    """Forget the items of the previous page."""
    st.session_state[_ITEMS] = {}


def page_items() -> dict[str, PageItem]:
    """Figures, tables and pictures of this page so far, by name."""
    return st.session_state.setdefault(_ITEMS, {})


def escape_markdown(text: object) -> str:
    """Escape untrusted text, such as a file name in an error, so that Streamlit's Markdown shows it literally.

    Otherwise a name could contain an image or link to another host, or a formula.
    """
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*_\[\]<#~$&]|:(?=[\w/+-]))", r"\\\1", text)
    return re.sub(r"^(\d+(?=[.)])|(?=[-+>=]))", r"\1\\", text)  # a list, a quotation or a heading
