"""Every model measured against what is published for it."""

import streamlit as st

from iwae import catalog
from iwae.figures.base import points_against_k
from iwae.results import comparison, grid, tables
from iwae.results import rows as results
from pages.common import figure_card
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar
from pages.results.table import open_model, results_table

view = sidebar("Results")
st.title("Measured against published", anchor=False)
st.write(
    "Each model beside the lowest published value of its cell: the same data, architecture, objective and k. "
    "Everything is in nats per image; lower is better for NLL. IWAE buys its lower NLL with a higher reconstruction "
    "loss, as its q spreads over more of the posterior."
)

rows, refused = results.collect(catalog.entries()[0])
missing = grid.not_run(rows)
for reason in refused.values():
    st.warning(figure_card.escape_markdown(reason))

left, right = st.columns(2)
places = list(dict.fromkeys((row.cell.dataset, row.cell.model) for row in [*rows, *missing]))
names = list(dict.fromkeys(dataset for dataset, _ in places))
usual = names.index(view.a.config.dataset) if view.a.config.dataset in names else 0
dataset = left.selectbox("Data set of the figures", names, usual, key="results.data", persist_state="session")
models = [model for name, model in places if name == dataset]
model = right.selectbox("Architecture", models, key="results.model", persist_state="session")

st.subheader("Against the number of samples k", anchor=False)
for column, (measure, title) in zip(
    st.columns(2, gap="large"), (("nll", "NLL"), ("reconstruction", "reconstruction loss")), strict=True
):
    points = results.against_k(rows, dataset, model, measure)
    with column:
        st.markdown(f"**{title}**, nats per image")
        if points:
            caption = (
                f"{title} against k on {dataset}, {model}. Filled: measured, ± standard error over test images, which "
                "is the uncertainty of the level and not of a difference. Hollow: published, by source, without errors."
            )
            drawn = points_against_k(points, f"{title}, nats")
            figure_card.figure(drawn, f"results.{measure}", caption, tables.points(title, points))
        else:
            st.info("Neither measured nor published for VAE and IWAE.")

st.subheader("All models", anchor=False)
everything = st.toggle(f"Also the {len(missing)} published cells that are not run", key="results.all")
shown = [*rows, *(missing if everything else [])]
chosen = results_table(shown)
if chosen is None:
    st.caption("Select a row to open its model, or to see the command that trains it.")
else:
    open_model(chosen)
for difference in comparison.seed_differences(rows):
    st.write(difference.text)
st.markdown(f":small[Difference: {tables.DIFFERENCE_NOTE}.]")
for letter, source in tables.sources(tables.markdown(shown)).items():
    st.markdown(f":small[{letter}: {source.text}]")  # a caption would grey its links below a contrast of 4.5:1
one, two, _ = st.columns([1, 1, 2])
one.download_button("Download as CSV", tables.csv_text(shown), "results.csv", "text/csv", width="stretch")
two.download_button("Download as Markdown", tables.document(shown), "results.md", "text/markdown", width="stretch")

report_button(view)
