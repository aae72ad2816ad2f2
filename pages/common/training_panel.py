"""Train a small model from the sidebar: a form (``training_form``), and a panel that follows the runs."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from iwae.figures.base import Line, training_curve
from iwae.runs import queue, store, summary
from iwae.runs.queue import Status
from iwae.runs.store import Run, RunError
from iwae.runs.summary import Standing
from iwae.system import untrusted
from pages.common.figure_card import plain
from pages.common.polling import beat
from pages.common.training_form import form

LOOK_SECONDS = 1.0  # between two looks at the runs, while one is alive
PAGES_A_SECOND = 6  # that look: with more open pages each looks less often
FORGOTTEN = 30.0  # seconds after which a page that has not looked is gone
SHOWN = 3  # runs in the panel, the newest
SIDEBAR = 230  # pixels of a chart: one that follows a collapsed sidebar down to no width fails in the browser


def training_panel(alive: list[Run]) -> None:
    """The form and the runs, for the sidebar; ``alive`` are the runs that were so when the page began to be drawn."""
    with st.expander("Train a small model", icon=":material/model_training:"):
        if started := form():
            look_again()
            st.session_state["run"] = started.name  # the one that the page of training shows
            st.rerun()
    # Once one has ended, the pickers above should offer it.
    beat(_progress, lambda: not all(run.status().alive for run in alive), _seconds() if alive else None)


def alive_runs() -> list[Run]:
    """All runs that are alive."""
    return _look_at_all().alive


_looked: dict[str, float] = {}  # when each open page looked last, by its session


def _seconds() -> float:
    """Between two looks of one page."""
    now = time.monotonic()
    lately = [session for session, when in list(_looked.items()) if now - when < FORGOTTEN]
    for session in set(_looked) - set(lately):
        _looked.pop(session, None)
    return max(LOOK_SECONDS, len(lately) / PAGES_A_SECOND)


def _progress() -> None:
    """The newest runs, live; it reads their folders only, so it survives closed tabs and page changes."""
    _looked[st.session_state.setdefault("session", uuid.uuid4().hex)] = time.monotonic()
    for look in _look_at_all().looks:
        if look.standing is None:
            st.error(plain(look.damage))
        else:
            _show(look, look.standing)


@dataclass(frozen=True)
class _Look:
    """What the panel shows of a run."""

    run: Run
    status: Status
    standing: Standing | None  # None if its files are damaged
    damage: str = ""
    curve: go.Figure | None = None  # from its second record on
    left: str = ""  # of a run that is alive


@dataclass(frozen=True)
class _Recent:
    """What is new of all runs."""

    looks: list[_Look]
    alive: list[Run]


def _look_at_all() -> _Recent:
    """One look a second, however many pages follow: thirty, each with a look of its own, would keep a core busy."""
    return _recent(store.runs_dir(), int(time.monotonic() / LOOK_SECONDS))


# The second is an argument, for Streamlit's own ttl raises a KeyError where an entry expires while it is read.
@st.cache_resource(max_entries=2, show_spinner=False)
def _recent(folder: Path, second: int) -> _Recent:
    """A folder's runs as they were in that second: the running ones, then the waiting ones, the next one first, and
    then the newest."""
    status = {run: run.status() for run in store.list_runs()}
    alive = [run for run, one in status.items() if one.alive]
    queued = any(status[run].phase in ("starting", "waiting") for run in alive)
    waiting = [run.name for run in queue.queue(folder)] if queued else []

    def order(run: Run) -> tuple[bool, int]:
        return not status[run].alive, 1 + waiting.index(run.name) if run.name in waiting else 0

    shown = sorted(status, key=order)[:SHOWN]  # which leaves equal ones newest first
    return _Recent([_look(run, status[run], waiting) for run in shown], alive)


def look_again() -> None:
    """Show a change of the runs at once."""
    _recent.clear()


def _look(run: Run, status: Status, waiting: list[str]) -> _Look:
    try:
        one = summary.read(run)
    except RunError as error:
        return _Look(run, status, None, str(error))
    left = _time_left(one, waiting) if one.status.alive else ""
    if len(one.records) < 2:
        return _Look(run, one.status, one, left=left)
    all_of_it, checked = summary.thinned(one.records), summary.thinned(one.checked)
    valid = Line("validation", one.kind, [r.passes for r in checked], [r.valid_bound for r in checked], dashed=True)
    curve = training_curve("training", one.kind, [r.passes for r in all_of_it], [r.bound for r in all_of_it], valid)
    return _Look(run, one.status, one, curve=curve, left=left)


def _show(look: _Look, standing: Standing) -> None:
    config, status = standing.config, look.status
    with st.container(border=True):
        st.markdown(f"**{config.bound().title} k = {config.k}** · {config.dataset} · {plain(config.model)}")
        if status.alive:
            st.progress(standing.progress[0], look.left)
        if standing.records:
            _numbers(standing, look.curve)
        if status.message:
            st.error(plain(f"{status.phase}: {status.message}"))
        run_buttons(look.run, status)


def _time_left(one: Standing, waiting: list[str]) -> str:
    """``40% · 12 s left``, or what it is at instead."""
    if one.status.phase == "waiting":
        return f"waiting, {queue.position(one.run, waiting)}"
    if one.status.phase == "stopping":
        return "stopping: it ends the step it is at, and saves …"
    if one.status.phase == "suspended":
        return "suspended"
    if one.status.phase == "evaluating":
        return "measuring it on test images …"
    done, left = one.progress
    if left is None:
        return "starting …"
    return f"{done:.0%} · {f'{left / 60:.0f} min' if left >= 90 else f'{left:.0f} s'} left"


def _numbers(standing: Standing, curve: go.Figure | None) -> None:
    last, checked = standing.records[-1], standing.checked
    if curve:
        st.plotly_chart(curve, width=SIDEBAR, key=f"curve.{standing.name}", config={"displayModeBar": False})
    valid_text = f", validation {checked[-1].valid_bound:.2f}" if checked else ""
    st.caption(
        f"bound {last.bound:.2f}{valid_text} nats per image".replace("-", "−")
        + f" · {last.passes:.1f} passes · {last.images_per_second:,.0f} images/s · {last.seconds:.0f} s"
    )


def run_buttons(run: Run, status: Status, place: str = "") -> None:
    """Stop or resume it, or take its model; ``place`` tells the buttons of one spot of the page from another's."""
    actions = {}
    if not status.alive and status.phase != "finished":
        actions["Resume"] = run.resume
    if not status.alive and untrusted.is_file(run.checkpoint):
        actions |= {"Use as A": lambda: _use("a", run), "Use as B": lambda: _use("b", run)}
    row = st.container(horizontal=True)
    if status.alive:
        asked = run.asked_to_stop
        # a callback comes before anything is drawn again, so the click is answered at once
        row.button(
            "Stopping …" if asked else "Stop",
            key=f"Stop.{run.name}{place}",
            disabled=asked,
            on_click=_act,
            args=(run, run.stop),
        )
    for label, action in actions.items():
        if row.button(label, key=f"{label}.{run.name}{place}") and _act(run, action):
            st.rerun()
    if error := st.session_state.pop(f"refused.{run.name}", None):
        st.error(plain(error))


def _act(run: Run, action: Callable[[], None]) -> bool:
    """Do it; if it is refused, ``run_buttons`` says why."""
    try:
        action()
    except (RunError, OSError) as error:
        st.session_state[f"refused.{run.name}"] = str(error)
        return False
    look_again()
    return True


def _use(slot: str, run: Run) -> None:
    st.session_state["pick"] = slot, f"run:{run.name}"
