"""Train a small model from the sidebar: a form (``training_form``), and a panel that follows the runs."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from iwae.catalog import LAYERS
from iwae.evaluation import stats
from iwae.evaluation.stats import decimal
from iwae.figures.base import Line, training_curve
from iwae.runs import queue, store, summary
from iwae.runs.queue import RunStatus
from iwae.runs.store import Run, RunError
from iwae.runs.summary import RunSummary
from iwae.system import paths, untrusted
from pages.common.figure_card import escape_markdown
from pages.common.models.model_picker import pick
from pages.common.runs.training_form import form
from pages.common.runs.training_pair import RUNNING, compare, offer_pair, side_by_side
from pages.common.server.polling import poll
from pages.frame.links import reveal

POLL_SECONDS = 1.0  # between two polls of the runs, while one is alive
PAGES_A_SECOND = 6  # that poll: with more open pages each polls less often
IDLE_SECONDS = 30.0  # seconds after which a page that has not polled is considered closed
SHOWN = 3  # runs in the panel, the newest
SIDEBAR = 230  # pixels of a chart: one that follows a collapsed sidebar down to no width fails in the browser


def training_panel(alive: list[Run]) -> None:
    """The form and the runs, for the sidebar; ``alive``: the runs that were alive when the page run began."""
    if st.session_state.pop("train now", False):  # asked for elsewhere on the page
        st.session_state["train"] = True
        reveal("train")
    with st.expander("Train a small model", icon=":material/model_training:", key="train", on_change="rerun") as box:
        side_by_side()
        if started := form(estimates=bool(box.open)):
            refresh()
            st.session_state["run"] = started.name  # the one that the page of training shows
            st.rerun()
    # Once one has ended, the pickers above should offer it.
    with st.container(key=RUNNING):
        poll(_progress, lambda: not all(run.status().alive for run in alive), _poll_seconds() if alive else None)


def open_form_button(key: str, dataset: str | None = None) -> None:
    """A button that opens the sidebar's form, for training on ``dataset``, from elsewhere on the page."""
    if st.button("Open the form", icon=":material/model_training:", key=key):
        st.session_state["train now"] = True
        if dataset:
            st.session_state["train.dataset added"] = dataset
        st.rerun()


def alive_runs() -> list[Run]:
    """All runs that are alive."""
    return _recent_runs().alive


_last_polled: dict[str, float] = {}  # time of the last poll of each open page, by session


def _poll_seconds() -> float:
    """Seconds between two polls of one page."""
    now = time.monotonic()
    lately = [session for session, when in list(_last_polled.items()) if now - when < IDLE_SECONDS]
    for session in set(_last_polled) - set(lately):
        _last_polled.pop(session, None)
    return max(POLL_SECONDS, len(lately) / PAGES_A_SECOND)


def _progress() -> None:
    """The newest runs, live; it reads their folders only, so it survives closed tabs and page changes."""
    _last_polled[st.session_state.setdefault("session", uuid.uuid4().hex)] = time.monotonic()
    offer_pair()
    for entry in _recent_runs().entries:
        if entry.summary is None:
            st.error(escape_markdown(entry.damage))
        else:
            _show(entry, entry.summary)


@dataclass(frozen=True)
class _PanelEntry:
    """What the panel shows of a run."""

    run: Run
    status: RunStatus
    summary: RunSummary | None  # None if its files are damaged
    damage: str = ""
    curve: go.Figure | None = None  # from its second record on
    left: str = ""  # of a run that is alive


@dataclass(frozen=True)
class _Recent:
    """The newest runs, and all that are alive."""

    entries: list[_PanelEntry]
    alive: list[Run]


def _recent_runs() -> _Recent:
    """Read the runs once a second for all pages: thirty pages that each read them would keep a core busy."""
    return _recent(store.runs_dir(), int(time.monotonic() / POLL_SECONDS))


# The second is an argument, for Streamlit's own ttl raises a KeyError where an entry expires while it is read.
@st.cache_resource(max_entries=2, show_spinner=False)
def _recent(folder: Path, second: int) -> _Recent:
    """A folder's runs as they were in that second: the running ones, then the waiting ones, the next one first, and
    then the newest."""
    status = {run: run.status() for run in store.list_runs()}
    alive = [run for run, one in status.items() if one.alive]
    queued = any(status[run].phase in ("starting", "waiting") for run in alive)
    waiting = [run.name for run in queue.waiting_runs(folder)] if queued else []

    def order(run: Run) -> tuple[bool, int]:
        return not status[run].alive, 1 + waiting.index(run.name) if run.name in waiting else 0

    shown = sorted(status, key=order)[:SHOWN]  # which leaves equal ones newest first
    return _Recent([_panel_entry(run, status[run], waiting) for run in shown], alive)


def refresh() -> None:
    """Discard the cached runs, so that a change shows at once."""
    _recent.clear()


def _panel_entry(run: Run, status: RunStatus, waiting: list[str]) -> _PanelEntry:
    try:
        run_summary = summary.read(run)
    except RunError as error:
        return _PanelEntry(run, status, None, str(error))
    left = _time_left(run_summary, waiting) if run_summary.status.alive else ""
    if len(run_summary.records) < 2:
        return _PanelEntry(run, run_summary.status, run_summary, left=left)
    all_of_it, validated = summary.thinned(run_summary.records), summary.thinned(run_summary.validated)
    valid = Line(
        "validation", run_summary.kind, [r.epochs for r in validated], [r.valid_bound for r in validated], dashed=True
    )
    curve = training_curve(
        "training", run_summary.kind, [r.epochs for r in all_of_it], [r.bound for r in all_of_it], valid
    )
    return _PanelEntry(run, run_summary.status, run_summary, curve=curve, left=left)


def _show(entry: _PanelEntry, run_summary: RunSummary) -> None:
    config, status = run_summary.config, entry.status
    with st.container(border=True):
        layers = escape_markdown(LAYERS.get(config.model, config.model))
        st.markdown(f"**{config.bound().title} k = {config.k}** · {config.dataset} · {layers}")
        if status.alive:
            st.progress(run_summary.progress[0], entry.left)
        else:
            st.markdown(score(run_summary) or f"{status.phase} before its first validation")
        if run_summary.records:
            _numbers(run_summary, entry.curve)
        if status.message:
            st.error(escape_markdown(f"{status.phase}: {status.message}"))
        run_buttons(entry.run, status)


def _time_left(run_summary: RunSummary, waiting: list[str]) -> str:
    """``40% · 12 s left``, or what it is at instead."""
    if run_summary.status.phase == "waiting":
        return f"waiting, {queue.position(run_summary.run, waiting)}"
    if run_summary.status.phase == "stopping":
        return "stopping: finishing its step and saving …"
    if run_summary.status.phase == "suspended":
        return "suspended"
    if run_summary.status.phase == "evaluating":
        return "evaluating on test images …"
    done, left = run_summary.progress
    if left is None:
        return "starting …"
    return f"{done:.0%} · {stats.duration(left)} left"


def _numbers(run_summary: RunSummary, curve: go.Figure | None) -> None:
    last, validated = run_summary.records[-1], run_summary.validated
    if curve:
        st.plotly_chart(curve, width=SIDEBAR, key=f"curve.{run_summary.name}", config={"displayModeBar": False})
    valid_text = f", validation {decimal(validated[-1].valid_bound)}" if validated else ""
    st.caption(
        f"bound {decimal(last.bound)}{valid_text} nats per image"
        f" · {last.epochs:.1f} epochs · {last.images_per_second:,.0f} images/s · {last.seconds:.0f} s"
    )


def score(run_summary: RunSummary) -> str:
    """``NLL 97.88 ± 1.17 nats per image``, or the bound on validation images where it has not been tested."""
    metrics, validated = run_summary.metrics, run_summary.validated
    if metrics.get("nll") is not None:
        return f"NLL {stats.plus_minus(metrics['nll'], metrics['nll_se'])} nats per image"
    if validated:
        return f"validation bound {stats.decimal(validated[-1].valid_bound)} nats per image; not tested"
    return ""


def run_buttons(run: Run, status: RunStatus, suffix: str = "") -> None:
    """Stop or resume a run, or use its model; ``suffix`` distinguishes the keys of its buttons in several places."""
    actions = {}
    if not (status.alive or status.phase == "finished" or paths.read_only()):
        actions["Resume"] = run.resume
    if not status.alive and untrusted.is_file(run.checkpoint):
        actions |= {f"Use as {slot.upper()}": partial(pick, **{slot: f"run:{run.name}"}) for slot in "ab"}
        actions["Compare"] = partial(compare, run)
    row = st.container(horizontal=True)
    if status.alive:
        asked = run.stop_requested
        # a callback comes before anything is drawn again, so the click is answered at once
        row.button(
            "Stopping …" if asked else "Stop",
            key=f"Stop.{run.name}{suffix}",
            disabled=asked,
            on_click=_act,
            args=(run, run.stop),
        )
    for label, action in actions.items():
        if row.button(label, key=f"{label}.{run.name}{suffix}") and _act(run, action):
            st.rerun()
    if error := st.session_state.pop(f"refused.{run.name}", None):
        st.error(escape_markdown(error))


def _act(run: Run, action: Callable[[], None]) -> bool:
    """Perform the action; ``run_buttons`` shows the error if it fails."""
    try:
        action()
    except (RunError, OSError) as error:
        st.session_state[f"refused.{run.name}"] = str(error)
        return False
    refresh()
    return True
