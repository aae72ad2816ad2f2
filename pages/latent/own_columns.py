"""Columns from the visitor's own table, with a value for each test image, that the maps can be coloured by."""

import html
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import streamlit as st

from iwae.data import columns
from iwae.data.columns import ColumnError, ImageColumn
from iwae.figures.latent import Classes, Values
from iwae.system import optional
from pages.common.figure_card import escape_markdown

SUFFIX = " (file)"  # of their names among the choices
_LOADED, _ERROR, _FILE = "latent.table", "latent.table.error", "latent.table.file"  # in the session


class Table(NamedTuple):
    """A table that was read."""

    name: str  # of its file
    dataset: str
    columns: Mapping[str, ImageColumn]


def choices(dataset: str) -> dict[str, ImageColumn]:
    """The columns there are for the images of this data set, by what they are called among the choices."""
    table: Table | None = st.session_state.get(_LOADED)
    if table is None or table.dataset != dataset:
        return {}
    return {f"{title}{SUFFIX}": column for title, column in table.columns.items()}


def pick_table(dataset: str, images: int) -> None:
    """A button that opens a field for the table; ``images``: of the test set."""
    with st.popover("File", icon=":material/table_view:", help="Colour by columns of your own file."):
        st.markdown(
            f"A CSV or Parquet file with a row for each test image: column `{columns.KEY}` is its number, 0 to "
            f"{images - 1:,}, and the others are what to colour by. Numbers get a colour scale; texts, at most "
            f"{columns.MAX_CLASSES} different ones, a colour each and a legend. It stays in this session."
        )
        st.file_uploader(
            "A table", [suffix[1:] for suffix in columns.SUFFIXES], max_upload_size=columns.MAX_BYTES // 2**20,
            key=_FILE, on_change=_load, args=(dataset, images), label_visibility="collapsed",
        )  # fmt: skip
        if error := st.session_state.get(_ERROR):
            st.error(escape_markdown(error))
        if table := st.session_state.get(_LOADED):
            elsewhere = "" if table.dataset == dataset else f"; of images of {table.dataset}, not of {dataset}"
            titles = ", ".join(table.columns)
            st.caption(escape_markdown(f"In use: {table.name}, with {titles}{elsewhere}."))


def _load(dataset: str, images: int) -> None:
    """Read the file that was given, and colour by its first column; without a file, forget the table."""
    file = st.session_state[_FILE]
    st.session_state[_ERROR] = ""
    if file is None:
        st.session_state.pop(_LOADED, None)
        return
    try:
        found = columns.read(file.getvalue(), file.name, images)
    except (ColumnError, optional.MissingError) as error:
        st.session_state[_ERROR] = str(error)
        return
    st.session_state[_LOADED] = Table(file.name, dataset, found)
    st.session_state["colour"] = f"{next(iter(found))}{SUFFIX}"


def colours(column: ImageColumn, title: str, numbers: np.ndarray) -> Classes | Values | None:
    """The colours of the test images with these numbers; None, and a sentence on the page, where none has a value."""
    values, title = column.values[numbers], html.escape(title.removesuffix(SUFFIX))
    if column.names is not None:
        return Classes(values, [html.escape(name) for name in column.names], title)
    known = values[np.isfinite(values)]
    if not len(known):
        st.info("None of the images on the maps has a number in this column.")
        return None
    low, high = np.quantile(known, [0.01, 0.99])
    return Values(values, title, (float(low), float(high)))
