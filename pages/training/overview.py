"""Section of the page of training: all runs together, in a table and in curves that follow them."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from iwae.data.sources import SOURCES
from iwae.figures.training import Curve, run_colours, run_curves
from iwae.runs import store, summary
from iwae.runs.store import Run, RunError
from iwae.runs.summary import RunSummary
from iwae.system import paths
from iwae.training import commands
from iwae.training.config import TrainConfig
from iwae.training.loop import Record
from pages.common import figure_card, reading
from pages.common.figure_card import escape_markdown
from pages.common.runs.training_pair import side_by_side
from pages.common.runs.training_panel import open_form_button, refresh
from pages.common.server.polling import poll

NEWEST = 6  # runs shown unless others are chosen
POLL_SECONDS, IDLE_SECONDS = 2.0, 10.0  # between two polls of the folders, while a run is alive and otherwise
FIRST = TrainConfig(objective="iwae", k=20, epochs=10, batch_size=50)
MEASURES = (  # key, title, axis, of a record, all records or only those with a validation, format
    ("bound", "Bound on training images", "nats per image", lambda r: r.bound, False, ".2f"),
    ("validation", "Bound on validation images", "nats per image", lambda r: r.valid_bound, True, ".2f"),
    ("units", "Active units of all layers", "units", lambda r: sum(r.active_units or (math.nan,)), True, ".0f"),
    ("speed", "Speed", "images per second", lambda r: r.images_per_second, False, ",.0f"),
)
UNITS: dict[str, Callable[[Record], float]] = {
    "epochs": lambda record: record.epochs,
    "minutes": lambda record: record.seconds / 60,
}


def start_here() -> None:
    """What to do while there is no run."""
    if paths.read_only():
        st.info("There is no run to look at: this is a public demo, where nothing is trained.")
        return
    st.info(
        "There is no run yet. Start one here, or choose its settings under *Train a small model* in the sidebar, or in "
        "a shell: `python -m iwae train`."
    )
    side_by_side(".page")
    images = SOURCES[FIRST.dataset].sizes[0]
    if st.button(f"Train an IWAE with k = 20 on the {images:,} digits of {FIRST.dataset}: about a minute"):
        try:
            store.start(FIRST)
        except (RunError, OSError) as error:
            st.error(escape_markdown(error))
        else:
            refresh()
            st.rerun()
    open_form_button("start.train")


def choose_runs(found: Sequence[Run]) -> tuple[list[Run], str]:
    """(runs to show, newest first; what their curves are drawn against)."""
    row = st.container(horizontal=True, vertical_alignment="bottom")
    names = [run.name for run in found]
    if gone := set(st.session_state.get("runs", [])) - set(names):
        st.session_state["runs"] = [name for name in st.session_state["runs"] if name not in gone]
    chosen = row.multiselect(
        "Runs shown", names, key="runs", bind="query-params", placeholder=f"the newest {min(NEWEST, len(names))}"
    )
    against = row.segmented_control(
        "Against", list(UNITS), default="epochs", required=True, key="against", bind="query-params"
    )
    return [run for run in found if run.name in (chosen or names[:NEWEST])], against


def all_runs(found: Sequence[Run], shown: Sequence[Run], against: str) -> None:
    """The runs ``shown`` in a table and curves, and where their settings differ."""
    live(found, shown, against)
    st.markdown("**Where the settings differ**")
    compare(shown)
    reading.formulas(
        "What the curves are",
        (
            r"\text{bound} = \frac{1}{n}\sum_{x} \hat{L}(x),\qquad \text{unit } u \text{ is active if } "
            r"\operatorname{Var}_x\!\left(\mathbb{E}_{q(h|x)}[h_u]\right) > 10^{-2}"
        ),
        text=(
            "The bound is that of the run's own objective, in nats per image: between objectives only a test NLL can "
            "be compared, as L_k alone grows with k. The validation bound is the same on images that are not trained "
            "on; where the two diverge, the model begins to overfit."
        ),
    )


def live(found: Sequence[Run], shown: Sequence[Run], against: str) -> None:
    """The table and the curves of the runs ``shown``, which follow their folders as long as the page is open.

    Once any of those ``found`` is gone, another one has begun, or one shown has ended, all of the page is about it.
    """

    def state(every: Sequence[Run]) -> tuple[set[str], set[str]]:
        return {run.name for run in every}, {run.name for run in shown if run.status().alive}

    first = state(found)
    seconds = POLL_SECONDS if first[1] else IDLE_SECONDS
    poll(lambda: _live(shown, against), lambda: state(store.list_runs()) != first, seconds)


def _live(shown: Sequence[Run], against: str) -> None:
    summaries = _read(shown)
    if not summaries:
        return
    table = [{"": str(number)} | summary.table_row(one) for number, one in enumerate(summaries, 1)]
    st.dataframe(table, column_config=_columns(), hide_index=True, key="runs.table", placeholder=summary.MISSING)
    for one in summaries:
        if one.status.message:
            st.error(escape_markdown(f"{one.name} · {one.status.phase}: {one.status.message}"))
    columns = [column for _ in range(2) for column in st.columns(2, gap="large")]
    for column, (key, title, unit, measure, checked, form) in zip(columns, MEASURES, strict=True):
        with column:
            st.markdown(f"**{title}**")
            _figure(summaries, f"training.{key}", title, unit, measure, checked, form, against)


def _figure(
    summaries: Sequence[RunSummary],
    key: str,
    title: str,
    unit: str,
    measure: Any,
    validated: bool,
    form: str,
    against: str,
) -> None:
    curves, numbers = [], []
    colours = run_colours(_kinds())
    for number, one in enumerate(summaries, 1):
        records = summary.thinned(one.validated if validated else one.records)
        x, y = [UNITS[against](record) for record in records], [measure(record) for record in records]
        curves.append(Curve(f"{number} · {one.title}", one.kind, x, y, colours[one.name]))
        numbers += [{"run": one.name, against: a, unit: b} for a, b in zip(x, y, strict=True)]
    if not numbers:
        st.caption("No record yet.")
        return
    x_title = "epochs" if against == "epochs" else "minutes of training"
    last = [f"{curve.y[-1]:{form}}".replace("-", "−") + f" ({curve.name})" for curve in curves if curve.y]
    caption = f"{title}: {unit} against {x_title}. Last: {', '.join(last)}."
    figure_card.figure(run_curves(curves, x_title, unit, form, late="nats" in unit), key, caption, numbers)


def _kinds() -> dict[str, str]:
    """The kind of every run that can be read."""
    found = {}
    for run in store.list_runs():
        with suppress(RunError):
            found[run.name] = run.config.kind
    return found


def compare(shown: Sequence[Run]) -> None:
    """A table of the settings that are not the same in all of these runs."""
    summaries = _read(shown, quiet=True)
    different = summary.differences(summaries)
    if len(summaries) < 2:
        st.caption("There is only one run: nothing to compare it with yet.")
    elif not different:
        st.caption("All settings are the same: these runs repeat one another.")
    else:
        names = [f"{number} · {one.title}" for number, one in enumerate(summaries, 1)]
        rows = {"run": names} | different | {"folder": [one.name for one in summaries]}
        st.dataframe(rows, hide_index=True, key="differences", placeholder="–")


def commands_of(shown: Sequence[Run]) -> dict[str, str]:
    """The command that trains each of these runs again, by its name."""
    return {one.name: commands.train(one.config) for one in _read(shown, quiet=True)}


def _read(shown: Sequence[Run], quiet: bool = False) -> list[RunSummary]:
    found = []
    for run in shown:
        try:
            found.append(summary.read(run))
        except RunError as error:
            if not quiet:
                st.error(escape_markdown(error))
    return found


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "": st.column_config.TextColumn("", help="its number in the figures", pinned=True),
        "done": st.column_config.ProgressColumn("done", format="percent", min_value=0, max_value=1),
        "epochs": number(format="%.1f", help="over the training data"),
        "minutes": number(format="%.1f", help="of training, without the test at the end"),
        "bound": number(format="%.2f", help="on training images since the record before, nats per image"),
        "validation": number(format="%.2f", help="bound on validation images, nats per image"),
        "active units": st.column_config.TextColumn(help="of each stochastic layer, on validation images"),
        "images/s": number(format="%.0f"),
        "test NLL": number(format="%.2f", help="−L₁₀₀₀ on up to 1,000 test images, nats per image; lower is better"),
        "± s.e.": number(format="%.2f", help="standard error over the test images"),
    }
