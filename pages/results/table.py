"""Section of the page of results: the table, and what a selected row offers."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from iwae.results import comparison, grid, tables
from iwae.results.rows import Row
from pages.common import reading
from pages.common.download import download_button
from pages.common.figure_card import escape_markdown
from pages.common.models.model_picker import pick
from pages.frame.links import page_link

# In this order; the first stays in view.
SHOWN = (
    *("name", "nll", "nll_se", "difference", "difference_nll", "published", "source", "nll_ais", "ais_gap"),
    *("regularisation", "dataset", "architecture", "objective", "start", "reconstruction"),
    *("published_reconstruction", "elbo", "kl_prior", "kl_posterior", "kl_posterior_ais"),
    *("active", "pruned_nll", "epochs", "minutes", "device", "seed", "draws", "gradient", "schedule"),
    "comparison",
)


def all_models(rows: Sequence[Row], missing: Sequence[Row]) -> None:
    """The table of results, what its selected row offers, its sources and its files."""
    title = f"Also the {len(missing)} published values without a model here"
    everything = st.toggle(title, key="results.all", bind="query-params")
    if everything:
        with st.spinner("Measuring how long each of them would take here …"):
            missing = grid.with_costs(missing)
    shown = [*rows, *(missing if everything else [])]
    chosen = results_table(shown)
    if chosen is None:
        st.caption("Select a row to open its model, or to see the command that trains it.")
    else:
        open_model(chosen)
    if differences := comparison.seed_differences(rows):
        lines = (f"- {difference.text}" for difference in differences)
        st.markdown("\n".join(["NLL of models that were trained alike, means over seeds:", *lines]))
    st.markdown(f":small[Difference: {tables.DIFFERENCE_NOTE}.]")
    for letter, source in tables.sources(tables.markdown(shown)).items():
        st.markdown(f":small[{letter}: {source.text}]")  # a caption would grey its links below a contrast of 4.5:1
    with st.container(horizontal=True):
        for kind, suffix, mime, text in (
            ("CSV", "csv", "text/csv", tables.csv_text),
            ("Markdown", "md", "text/markdown", tables.document),
            ("LaTeX", "tex", "application/x-tex", tables.latex),
        ):
            download_button(f"Download as {kind}", partial(text, shown), f"results.{suffix}", mime, f"results.{suffix}")
    reading.glossary("nats", "NLL", "ELBO", "D_KL", "active unit", "standard error")


def results_table(rows: Sequence[Row]) -> Row | None:
    """A table that can be sorted; the row that is selected."""
    columns = [name for name in SHOWN if name != "nll_se" or not reading.simple()]
    event = st.dataframe(
        tables.values(rows, columns),
        column_config={name: _column(name, tables.SORTABLE[name]) for name in columns},
        hide_index=True,
        width="stretch",
        key="results",
        on_select="rerun",
        selection_mode="single-row",
        placeholder="–",
    )
    chosen = [row for row in event.selection.rows if row in range(len(rows))]  # the table may have become shorter
    return rows[chosen[0]] if chosen else None


def open_model(row: Row) -> None:
    """Buttons that show a row's model as A or B, and the command that trains it."""
    published = f"published NLL: {tables.COLUMNS['published'].text(row)}"
    if row.status == "not run" and (cost := tables.cost(row)):
        published += f" · {cost} of training on this CPU"
    with st.container(border=True):
        st.markdown(f"**{escape_markdown(row.name)}** · {row.comparison or published}")
        if row.path:
            one, two, three = st.columns(3, vertical_alignment="center")
            for column, slot in ((one, "A"), (two, "B")):
                if column.button(f"Show as {slot}", key=f"show.{slot}", width="stretch"):
                    pick(**{slot.lower(): row.name})
                    st.rerun()
            with three:
                page_link("pages/1_Posterior.py", "See its posterior", "blur_on")
        st.code(row.command, language="sh", wrap_lines=True)


def _column(name: str, column: tables.Column):
    if column.number is None:
        width = "medium" if name == "difference" else None
        return st.column_config.TextColumn(column.title, help=column.help, pinned=name == "name", width=width)
    return st.column_config.NumberColumn(column.title, help=column.help, format=column.form)
