"""Caches are bounded in bytes, and no draw is made twice."""

import gc
import sys
import threading
import time
import types
import weakref

import numpy as np
import streamlit as st
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.session_manager import SessionInfo
from streamlit.runtime.websocket_session_manager import WebsocketSessionManager

from iwae.inference import posterior as engine
from iwae.runs import store, summary
from iwae.training.config import TrainConfig
from pages.common.runs import training_panel
from pages.common.server import server_memory
from pages.common.server.bounded import bounded, size


def test_what_was_used_longest_ago_goes_first():
    made = []

    @bounded(megabytes=1)
    @st.cache_resource(max_entries=100)
    def zeros(number, count):
        made.append(number)
        return [np.zeros(count, np.uint8)]

    for number in (1, 2, 1, 3):  # with the third 1.2 MB: 2 goes
        zeros(number, 400_000)
    assert made == [1, 2, 3]
    zeros(1, 400_000)
    assert made == [1, 2, 3]
    zeros(2, 400_000)
    assert made == [1, 2, 3, 2]
    assert size({"a": np.zeros(3), "b": (np.zeros(2),)}) == 40
    assert size(zeros(4, 3_000_000)) == 3_000_000  # larger than all that is allowed: it stays alone
    zeros(4, 3_000_000)
    assert made == [1, 2, 3, 2, 4]
    zeros(2, 400_000)
    assert made == [1, 2, 3, 2, 4, 2]


def test_the_curve_and_the_numbers_share_one_draw(app, monkeypatch):
    drawn = []
    real = engine.Posterior.__init__

    def counted(self, *args, **kwargs):
        real(self, *args, **kwargs)
        drawn.extend([1] * (self.samples == 300))  # and not those that say how surprising the digit is

    monkeypatch.setattr(engine.Posterior, "__init__", counted)
    section = {"posterior_section": "Bound against k"}
    test = app("pages/1_Posterior.py", image=11, seed=12345, samples=300, **section)
    assert not test.exception and len(drawn) == 2  # one for each of two models
    assert not test.run().exception and len(drawn) == 2
    server_memory.release_all()
    assert not test.run().exception and len(drawn) == 4


def test_pages_that_follow_a_run_share_one_look_at_it(app, monkeypatch):
    looks, read = [], summary.read
    monkeypatch.setattr(summary, "read", lambda run: looks.append(run) or read(run))
    run = store.create(TrainConfig("digits", model="16:4", k=2, epochs=1))
    run.set_status("stopped")
    monkeypatch.setattr(training_panel, "POLL_SECONDS", 1e6)  # three pages in one look, however slow the machine is
    for _ in range(3):
        assert not app().exception
    assert len(looks) == 1


def test_a_run_that_trains_keeps_one_copy_of_its_records():
    run = store.create(TrainConfig("digits", model="16:4", k=2, epochs=1))
    line = '{"step": 5, "epochs": 0.4, "bound": -1.0, "valid_bound": null, "active_units": null, '
    line += '"images_per_second": 1.0, "seconds": 1.0, "learning_rate": 0.001}\n'
    before = len(summary._cache)
    for count in (1, 2, 3):
        with (run.folder / "metrics.jsonl").open("a") as metrics:
            metrics.write(line)
        assert len(summary.read(run).records) == count
    assert len(summary._cache) == before + 1


def test_what_a_page_imports_is_kept_from_the_garbage_collector(monkeypatch):
    modules = server_memory.collect_garbage(len(sys.modules))
    monkeypatch.setitem(sys.modules, "imported_late", types.ModuleType("imported_late"))
    held = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    modules = server_memory.collect_garbage(modules)
    assert gc.get_freeze_count() >= before + len(held)
    frozen = gc.get_freeze_count()
    held = [[] for _ in range(1000)]
    assert server_memory.collect_garbage(modules) == modules
    assert gc.get_freeze_count() <= frozen  # nothing new: only what has gone is missing


def test_more_open_pages_look_less_often(monkeypatch):
    now = time.monotonic()
    pages = {str(number): now for number in range(30)}
    monkeypatch.setattr(training_panel, "_last_polled", {**pages, "gone": now - 2 * training_panel.IDLE_SECONDS})
    assert training_panel._poll_seconds() == 30 / training_panel.PAGES_A_SECOND
    assert set(training_panel._last_polled) == set(pages)
    monkeypatch.setattr(training_panel, "_last_polled", {"alone": now})
    assert training_panel._poll_seconds() == training_panel.POLL_SECONDS


def test_a_frozen_cycle_goes_when_all_have_gone():
    class Held:
        pass

    one = Held()
    one.own = one
    known = weakref.ref(one)
    gc.freeze()  # as after an import
    del one
    gc.collect()
    assert known() is not None
    server_memory.release_all()
    assert known() is None and gc.get_freeze_count()


def test_sessions_of_those_who_left_go_without_a_new_visitor():
    """Streamlit's own manager and store, whose time to come back is 0.1 s here and 120 s there."""

    class Session:
        id = "left"

    manager = WebsocketSessionManager(MemorySessionStorage(ttl_seconds=0.1), None, None, None)
    manager._session_storage.save(SessionInfo(client=None, session=(held := Session())))
    known = weakref.ref(held)
    del held
    server_memory.forget_sessions(manager)
    assert known() is not None  # may still come back
    time.sleep(0.2)
    assert known() is not None  # nobody looked: the store keeps it
    server_memory.forget_sessions(manager)
    gc.collect()
    assert known() is None


def test_garbage_is_collected_by_one_thread_and_not_by_pages(app, monkeypatch):
    app()
    assert [thread.name for thread in threading.enumerate()].count("tidy") == 1
    collected = []
    monkeypatch.setattr(gc, "collect", lambda *generation: collected.append(generation))
    app()
    assert not collected
    server_memory.collect_garbage(len(sys.modules))
    assert len(collected) == 1
