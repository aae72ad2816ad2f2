"""All training runs: their curves together, their settings side by side, and one run in detail."""

import streamlit as st

import pages.common  # noqa: F401 - before torch: see server_memory.py
from iwae.runs import store
from pages.common.figure_card import escape_markdown
from pages.common.report_button import report_button
from pages.common.sections import sections
from pages.common.server.polling import end_page
from pages.common.sidebar import sidebar
from pages.frame.navigation import begin
from pages.training.one_run import one_run
from pages.training.overview import all_runs, choose_runs, commands_of, start_here
from pages.training.strip import growing

ORDER = {"running": 0, "evaluating": 0, "stopping": 0, "starting": 1, "waiting": 1}  # by phase

view = sidebar(begin("Training", "Training"), images=False)
st.write(
    "Every run is a separate process: it continues when this page is closed, can be stopped and resumed without "
    "changing its result, and its progress is shown here."
)
found, refused = store.find_runs()
found.sort(key=lambda run: ORDER.get(run.status().phase, len(ORDER)))  # the running ones first, then the newest
for reason in refused.values():
    st.caption(escape_markdown(reason))
if not found:
    start_here()
    end_page()

shown, against = choose_runs(found)
growing(view.digit)
sections({
    "All runs": lambda: all_runs(found, shown, against),
    "One run": lambda: one_run(found),
})  # fmt: skip
report_button(view, runs=commands_of(shown))
