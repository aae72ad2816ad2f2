"""The table of results, and what a selected row offers."""

from collections.abc import Sequence

import streamlit as st

from iwae.results import tables
from iwae.results.rows import Row
from pages.common.figure_card import escape_markdown

# Of tables.values(), in this order; the first stays in view.
SHOWN = {
    "name": "text",
    "nll": "%.2f",
    "nll_se": "%.2f",
    "published": "%.2f",
    "source": "text",
    "difference": "text",
    "difference_nll": "%+.2f",
    "regularisation": "text",
    "dataset": "text",
    "architecture": "text",
    "objective": "text",
    "start": "text",
    "reconstruction": "%.2f",
    "published_reconstruction": "text",
    "elbo": "%.2f",
    "kl_prior": "%.2f",
    "kl_posterior": "%.2f",
    "active": "text",
    "pruned_nll": "%.2f",
    "epochs": "%.0f",
    "minutes": "%.0f",
    "device": "text",
    "seed": "text",
    "draws": "text",
    "gradient": "text",
    "schedule": "text",
    "comparison": "text",
}
EXTRA = {
    "nll_se": ("±", "standard error over test images, nats; over several seeds their standard deviation"),
    "source": ("source", "of the published NLL; the letters are explained below the table"),
    "difference_nll": ("nats", "the difference as a number, to sort by"),
}


def results_table(rows: Sequence[Row]) -> Row | None:
    """A table that can be sorted; the row that is selected."""
    values = [{name: record[name] for name in SHOWN} for record in tables.values(rows)]
    event = st.dataframe(
        values,
        column_config={name: _column(name, form) for name, form in SHOWN.items()},
        hide_index=True,
        width="stretch",
        key="results",
        on_select="rerun",
        selection_mode="single-row",
        placeholder="–",
    )
    chosen = event.selection.rows
    return rows[chosen[0]] if chosen and chosen[0] < len(rows) else None


def open_model(row: Row) -> None:
    """Buttons that show a row's model as A or B, and the command that trains it."""
    published = tables.COLUMNS["published"].text(row)
    with st.container(border=True):
        st.markdown(f"**{escape_markdown(row.name)}** · {row.comparison or f'published NLL: {published}'}")
        if row.path:
            one, two, three = st.columns(3, vertical_alignment="center")
            for column, slot in ((one, "A"), (two, "B")):
                if column.button(f"Show as {slot}", key=f"show.{slot}", width="stretch"):
                    st.session_state["pick"] = slot.lower(), row.name
                    st.rerun()
            three.page_link("pages/1_Posterior.py", label="See its posterior", icon=":material/blur_on:")
        st.code(row.command, language="sh", wrap_lines=True)


def _column(name: str, form: str):
    title, help = EXTRA[name] if name in EXTRA else (tables.COLUMNS[name].title, tables.COLUMNS[name].help)
    if form == "text":
        return st.column_config.TextColumn(title, help=help, pinned=name == "name")
    return st.column_config.NumberColumn(title, help=help, format=form)
