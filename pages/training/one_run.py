"""Section of the page of training: one run, what can be done with it, and its timeline."""

from collections.abc import Sequence

import streamlit as st

from iwae.catalog import LAYERS
from iwae.runs import summary
from iwae.runs.store import Run, RunError
from iwae.system import paths, untrusted
from iwae.training import commands
from pages.common.download import download_button
from pages.common.figure_card import escape_markdown
from pages.common.runs.training_panel import refresh, run_buttons
from pages.common.server.polling import set_in_dialog
from pages.training.timeline import scrubber


def one_run(found: Sequence[Run]) -> None:
    """A choice among the runs, and all of the chosen one."""
    names = [run.name for run in found]
    if st.session_state.get("run", names[0]) not in names:
        del st.session_state["run"]  # it has been deleted
    name = st.selectbox("Run", names, key="run", bind="query-params")
    run = next(run for run in found if run.name == name)
    manage(run)
    export(run)
    st.subheader("Timeline", anchor=False)
    scrubber(run)


def manage(run: Run) -> None:
    """Where it stands; stop, resume, use, or delete it."""
    try:
        one = summary.read(run)
    except RunError as error:
        st.error(escape_markdown(error))
    else:
        layers = LAYERS.get(one.config.model, one.config.model)
        st.caption(escape_markdown(f"{one.title} · {one.config.dataset} · {layers} · on {run.device}"))
        st.code(commands.train(one.config), language="sh", wrap_lines=True)
    if error := st.session_state.pop("not deleted", None):
        st.error(escape_markdown(error))
    status = run.status()
    st.fragment(_buttons)(run)
    if not paths.read_only() and st.button(
        "Delete …",
        icon=":material/delete:",
        disabled=status.alive,
        help="Stop it first: it is still running." if status.alive else "Asks for confirmation.",
        key=f"Delete.{run.name}",
    ):
        _confirm(run)


def _buttons(run: Run) -> None:
    """Drawn again by themselves after a click: the curves above take their time."""
    run_buttons(run, run.status(), ".page")


@st.dialog("Delete this run?", on_dismiss="rerun")
def _confirm(run: Run) -> None:
    set_in_dialog(True)
    st.write(f"**{escape_markdown(run.name)}** with its model, its curves and its snapshots. This cannot be undone.")
    yes, no = st.columns(2)
    if yes.button("Delete it", width="stretch", on_click=_delete, args=(run,)):
        st.rerun()
    if no.button("Keep it", width="stretch"):
        st.rerun()


def _delete(run: Run) -> None:
    try:
        run.delete()
    except (RunError, OSError) as error:
        st.session_state["not deleted"] = str(error)
    refresh()


def export(run: Run) -> None:
    """The run's files to download."""
    try:
        one = summary.read(run)
    except RunError:  # shown by manage()
        return
    files = [("Settings", "config.json", lambda: summary.settings_json(run), "application/json")]
    if one.records:
        files.append(("Curves", "metrics.csv", lambda: summary.metrics_csv(one.records), "text/csv"))
    if untrusted.is_file(run.checkpoint):
        name = f"model{run.checkpoint.suffix}"
        files.insert(0, ("Model", name, run.checkpoint.read_bytes, "application/octet-stream"))
    for column, (label, name, content, mime) in zip(st.columns(3), files, strict=False):
        with column:
            download_button(
                f"{label} ({name})", content, f"{run.name}-{name}", mime, f"export.{name}",
                icon=":material/download:", width="stretch",
            )  # fmt: skip
