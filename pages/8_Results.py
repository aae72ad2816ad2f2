"""Every model measured against what is published for it."""

import streamlit as st

import pages.common  # noqa: F401 - before torch: see server_memory.py
from iwae import catalog
from iwae.results import grid
from iwae.results import rows as results
from pages.common import figure_card
from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.results.against_k import against_k
from pages.results.poster import poster_checked
from pages.results.table import all_models

view = sidebar(begin("Results", "Measured against published"), images=False)
st.write(
    "Each model beside the lowest published value of its cell: the same data, architecture, objective and k. "
    "Everything is in nats per image; lower is better for NLL. IWAE buys its lower NLL with a higher reconstruction "
    "loss, as its q spreads over more of the posterior."
)

rows, refused = results.collect(catalog.entries()[0] | catalog.cards())
missing = grid.not_run(rows)
for reason in refused.values():
    st.warning(figure_card.escape_markdown(reason))

sections({
    "All models": lambda: all_models(rows, missing),
    "The poster, checked": lambda: poster_checked(rows),
    "Against the number of samples k": lambda: against_k(rows, missing, view.a.dataset),
})  # fmt: skip
report_button(view)
