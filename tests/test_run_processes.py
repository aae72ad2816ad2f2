"""What becomes of a run whose process is replaced, suspended or killed, whose folder is moved, or is another user's."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from iwae import checkpoints
from iwae.runs import queue, store, worker
from iwae.runs.queue import RunFolder
from iwae.runs.store import Run, RunError
from iwae.training.config import TrainConfig

CONFIG = TrainConfig(model="16:4", objective="vae", k=1, epochs=2, valid_images=50)

pytestmark = pytest.mark.usefixtures("own_runs")

HOLD = """
import sys, time
from pathlib import Path
from iwae.runs.queue import RunFolder
run = RunFolder(Path(sys.argv[1]))
with run.claim():
    run.set_status(sys.argv[2], since=1.0)
    time.sleep(600)
"""


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


@contextmanager
def held(run: RunFolder, phase: str):
    """Another process that works on the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.folder), phase])
    try:
        wait_until(lambda: run.status().phase == phase)
        yield process
    finally:
        process.kill()
        process.wait()


def word(run: RunFolder, **values) -> None:
    path = run.folder / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("started", [0.0, None, "text", -1, 1e30])
def test_a_number_that_another_process_has_by_now_is_no_process(started):
    """This process has the number; the one that was about to start had it before."""
    run = store.create(CONFIG)
    run.set_status("starting", since=time.time())
    assert run.status().phase == "starting" and [one.name for one in queue.waiting_runs(store.runs_dir())] == [run.name]
    word(run, started=started)
    assert run.status().phase == "died" and queue.waiting_runs(store.runs_dir()) == []
    run.delete()
    assert not run.folder.exists()


def test_each_run_that_waits_looks_at_the_one_before_its_own(monkeypatch):
    """Sixty that each looked at all took a core."""
    looks, status = [], RunFolder.status
    every = [store.create(CONFIG) for _ in range(12)]
    for number, run in enumerate(every):
        run.set_status("starting", since=1.0 + number)  # by this process, which lives
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(queue, "max_running", lambda: 1)
    last = every[-1]
    over = threading.Event()

    def count(run: RunFolder):
        if threading.current_thread().name == "waiting" and run.name != last.name:
            looks.append(run.name)
            if len(looks) > 500:
                over.set()
        return status(run)

    monkeypatch.setattr(RunFolder, "status", count)

    def wait():
        with last.claim():
            queue.wait_for_slot(last)

    waiting = threading.Thread(target=wait, name="waiting")
    waiting.start()
    assert over.wait(60)
    assert set(looks[20:400]) == {every[-2].name}
    every[-2].set_status("stopped", since=None)
    wait_until(lambda: looks[-1] == every[-3].name)
    last.stop()
    waiting.join(60)
    assert not waiting.is_alive() and last.status().phase == "stopped"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_a_suspended_process_is_said_to_be_and_leaves_the_queue():
    running, waiting = store.create(CONFIG), store.create(CONFIG)
    with held(running, "running") as process, held(waiting, "waiting") as other:
        assert [run.name for run in queue.waiting_runs(store.runs_dir())] == [waiting.name]
        for one in (process, other):
            one.send_signal(signal.SIGSTOP)
        wait_until(lambda: running.status().phase == waiting.status().phase == "suspended")
        assert f"kill -CONT {process.pid}" in running.status().message and running.status().alive
        assert queue.waiting_runs(store.runs_dir()) == []
        with pytest.raises(RunError, match="stop it first"):
            running.delete()
        for one in (process, other):
            one.send_signal(signal.SIGCONT)
        wait_until(lambda: running.status().phase == "running")
        running.stop()
        assert running.status().phase == "stopping" and running.status().alive
        assert [run.name for run in queue.waiting_runs(store.runs_dir())] == [waiting.name]
        waiting.stop()
        assert queue.waiting_runs(store.runs_dir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the end is explained by a parent, which is made by a fork")
def test_the_end_of_a_killed_process_is_explained(monkeypatch):
    """Nobody but the run's own parent process is there to see it."""
    run = store.create(CONFIG)
    with queue.FileLock(store.runs_dir() / ".slot-0"):  # so that it waits, and loads nothing
        process = subprocess.Popen(
            [sys.executable, "-m", "iwae.runs.process", str(run.folder)], env=os.environ | {"IWAE_MAX_RUNS": "1"}
        )
        wait_until(lambda: run.status().phase == "waiting")
        worker_pid = json.loads((run.folder / "status.json").read_text())["pid"]
        assert worker_pid != process.pid
        os.kill(worker_pid, signal.SIGKILL)
        assert process.wait(60) == 128 + signal.SIGKILL
    assert run.status().phase == "died"
    assert run.status().message.startswith("its process was killed (SIGKILL): by `kill -9`, or")
    run.prepare()  # it can go on


def test_what_a_process_said_itself_is_not_replaced():
    run = store.create(CONFIG)
    run.set_status("failed", "the disk is full")
    run.record_exit("ended with exit status 1")
    assert run.status().message == "the disk is full"
    run.set_status("running")  # by this process, which does not hold its lock
    run.record_exit("ended with exit status 1")
    assert run.status() == queue.RunStatus("died", "its process ended with exit status 1")


def test_a_run_whose_folder_is_moved_away_ends_and_goes_on_there(tmp_path):
    run = store.create(dataclasses.replace(CONFIG, epochs=30))
    aside, seen = tmp_path / "aside", []

    def move(record, training):
        seen.append(record.step)
        if len(seen) == 2:
            run.folder.parent.rename(aside)

    with pytest.raises(RunError, match="has been moved away or deleted"):
        worker.work(run, move, save_seconds=0)
    assert len(seen) == 2 and not run.folder.parent.exists()
    moved = Run(aside / run.name)
    assert (moved.status().phase, moved.status().message) == ("died", queue.NO_MESSAGE)
    assert checkpoints.read_card(moved.checkpoint).progress["steps"] == seen[0]
    moved.prepare()
    worker.work(moved, lambda record, training: record.step > seen[1] and moved.stop())
    assert [record.step for record in moved.records()][:2] == seen and moved.status().phase == "stopped"


def test_a_run_that_waits_ends_when_its_folder_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    run, errors = store.create(CONFIG), []
    with queue.FileLock(store.runs_dir() / ".slot-0"):
        monkeypatch.setattr(queue, "max_running", lambda: 1)

        def wait():
            try:
                queue.wait_for_slot(run)
            except RunError as error:
                errors.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: "waiting" in (run.folder / "status.json").read_text())
        run.folder.rename(tmp_path / "aside")
        waiting.join(60)
    assert len(errors) == 1 and "moved away" in errors[0] and not run.folder.exists()


def test_the_checkpoint_that_a_run_began_from_is_needed_once(tmp_path):
    first = store.create(CONFIG)
    worker.work(first)
    start = tmp_path / "start.safetensors"
    start.write_bytes(first.checkpoint.read_bytes())
    run = store.create(dataclasses.replace(CONFIG, start=str(start), seed=1))
    start.unlink()
    worker.work(run, lambda record, training: record.step >= 13 and run.stop())
    assert run.status().phase == "stopped"
    run.prepare()
    assert worker.work(run).phase == "finished"
    card = checkpoints.read_card(run.checkpoint)
    assert card.training["start"] == str(start)
    assert [part["training"]["seed"] for part in card.progress["history"]] == [0]
    with pytest.raises(ValueError, match="no such file"):
        store.create(dataclasses.replace(CONFIG, start=str(start)))
    assert len(store.list_runs()) == 2


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be changed here")
def test_runs_are_sorted_by_when_they_were_made_not_by_the_clock_on_the_wall(monkeypatch):
    made = []
    try:
        for zone in ("JST-9", "UTC0", "PST8"):  # POSIX: what is added to come to UTC
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            made.append(store.create(CONFIG).name)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert made == sorted(made, reverse=True)  # by their names the first would be the newest
    assert [run.name for run in store.list_runs()] == made[::-1]


@contextmanager
def another_user():
    """The rest of the block as a user that may only read; without root's rights there is no changing users."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs the right to become another user")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_another_users_runs_are_shown_and_those_that_may_not_be_read_are_passed_over(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # TMPDIR may be closed to the other user
        place = Path(name)
        place.chmod(0o755)  # as umask 022 leaves it
        monkeypatch.setenv("IWAE_RUNS_DIR", str(place))
        finished, running, secret, closed = (store.create(CONFIG) for _ in range(4))
        finished.set_status("finished")
        secret.folder.chmod(0o700)
        (closed.folder / "config.json").chmod(0o600)
        for run in (finished, running, closed):
            run.folder.chmod(0o755)
        with running.claim():
            running.set_status("running")
            with another_user():
                found, refused = store.find_runs()
                assert [run.name for run in found] == [running.name, finished.name]
                assert [run.status().phase for run in found] == ["running", "finished"]
                assert set(refused) == {secret.name, closed.name}
                assert f"run {secret.name} is skipped: it cannot be read (permission denied)" in refused.values()
                assert queue.waiting_runs(place) == [] and running.records() == []
                with pytest.raises(RunError, match="cannot be asked to stop"):
                    running.stop()
        with another_user():
            with pytest.raises(RunError, match="cannot be locked here"):
                finished.delete()
            assert running.status().phase == "running"  # by its process, which lives: its lock cannot be tried
        word(running, started=0.0)
        with another_user():
            assert running.status().phase == "died"
