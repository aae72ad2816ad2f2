"""All training runs: their curves together, their settings side by side, and one run in detail."""

import streamlit as st

from iwae.runs import store
from pages.common.figure_card import escape_markdown
from pages.common.report_button import report_button
from pages.common.sidebar import sidebar
from pages.training.overview import choose_runs, commands_of, compare, export, live, manage, start_here
from pages.training.timeline import scrubber

view = sidebar("Training")
st.title("Training", anchor=False)
st.write(
    "Every run is a separate process: it continues when this page is closed, can be stopped and resumed without "
    "changing its result, and its progress is shown here."
)
with st.expander("What the curves are"):
    st.latex(
        r"\text{bound} = \frac{1}{n}\sum_{x} \hat{L}(x),\qquad \text{unit } u \text{ is active if } "
        r"\operatorname{Var}_x\!\left(\mathbb{E}_{q(h|x)}[h_u]\right) > 10^{-2}"
    )
    st.write(
        "The bound is that of the run's own objective, in nats per image: between objectives only a test NLL can "
        "be compared, as L_k alone grows with k. The validation bound is the same on images that are not trained on; "
        "where the two diverge, the model begins to overfit."
    )

found, refused = store.find_runs()
for reason in refused.values():
    st.caption(escape_markdown(reason))
if not found:
    start_here()
    st.stop()

shown, against = choose_runs(found)
live(found, shown, against)

st.subheader("Where the settings differ", anchor=False)
compare(shown)

st.subheader("One run", anchor=False)
names = [run.name for run in found]
if st.session_state.get("run", names[0]) not in names:
    del st.session_state["run"]  # it has been deleted
name = st.selectbox("Run", names, key="run", bind="query-params")
run = next(run for run in found if run.name == name)
manage(run)
export(run)

st.subheader("Timeline", anchor=False)
scrubber(run)

report_button(view, runs=commands_of(shown))
