"""Runs with real processes on the embedded digits: whatever happens to a process, nothing but time is lost."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from iwae import checkpoints
from iwae.__main__ import main
from iwae.data import datasets
from iwae.runs import queue, store, worker
from iwae.runs.store import Run, RunError
from iwae.sweeps.process_pool import PROCESSES
from iwae.system import cores
from iwae.training.config import TrainConfig
from iwae.training.loop import NonFiniteError
from tests.process import use

# 78 steps; the average and the best weights are part of the state, so both are switched on
CONFIG = TrainConfig("digits", model="16:4", k=5, epochs=6, log_every=5, ema=0.9, patience=50)
CLOCK = ("seconds", "images_per_second")  # what differs from one run to the next


pytestmark = pytest.mark.usefixtures("own_runs")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return undisturbed_run(tmp_path_factory.mktemp("uninterrupted"))


def undisturbed_run(folder: Path) -> tuple[list[dict], dict, dict, dict, dict]:
    """What a run of CONFIG leaves when nothing happens to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IWAE_RUNS_DIR", str(folder))
        run = store.create(CONFIG)
    assert worker.work(run).phase == "finished"
    return outcome(run)


def outcome(run: Run) -> tuple[list[dict], dict, dict, dict, dict]:
    """(records without the clock, weights, the whole state, metrics, snapshots) of a finished run."""
    assert run.status() == queue.RunStatus("finished", total_steps=78)
    records = [{k: v for k, v in dataclasses.asdict(r).items() if k not in CLOCK} for r in run.records()]
    model, card = checkpoints.load(run.checkpoint)
    state, values = checkpoints.load_tensors(run.folder / "state.safetensors", "state")
    state |= {name: torch.tensor(value) for name, value in values.items() if name not in ("seconds", "since", "data")}
    snapshots = {
        f"{step}.{name}": weight
        for step, path in run.snapshots.paths().items()
        for name, weight in checkpoints.load(path)[0].state_dict().items()
    }
    return records, model.state_dict(), state, card.metrics, snapshots


def assert_same(run: Run, expected) -> None:
    """The same records, weights, optimiser, generator, test NLL and snapshots, bit for bit."""
    records, weights, state, metrics, snapshots = outcome(run)
    assert records == expected[0]
    assert {name.split(".")[0] for name in snapshots} == {str(13 * epochs) for epochs in range(7)}
    for found, wanted in ((weights, expected[1]), (state, expected[2]), (snapshots, expected[4])):
        assert list(found) == list(wanted)
        assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
    assert metrics == expected[3]


def wait_until(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def work_in_process(folder: Path, save_seconds: float) -> None:
    torch.set_num_threads(1)
    worker.SAVE_SECONDS = save_seconds
    worker.work(Run(folder))


def in_process(run: Run, save_seconds: float = 0.0):
    process = PROCESSES.Process(target=work_in_process, args=(run.folder, save_seconds))
    process.start()
    return process


def test_a_run_finishes_in_its_own_process(uninterrupted):
    run = store.start(CONFIG)
    assert run.status().phase == "starting"
    assert [found.name for found in store.list_runs()] == [run.name]
    wait_until(lambda: not run.status().alive)
    assert_same(run, uninterrupted)
    assert run.progress() == (1.0, 0.0)
    assert [r.step for r in run.records()][-1] == 78
    metrics = checkpoints.read_card(run.checkpoint).metrics
    assert metrics["images"] == 300 and metrics["samples"] == 1000
    assert -metrics["nll"] > run.records()[-1].valid_bound - 20  # nats; L_1000 of test against L_5 of validation
    wait_until(lambda: (run.folder / "log.txt").read_text().count("\n") == len(run.records()) + 1)
    with pytest.raises(RunError, match="is finished"):
        run.resume()
    run.delete()
    assert store.list_runs() == [] and not run.folder.exists()


def test_l_alpha_in_an_older_run_is_renyis_bound():
    run = store.create(TrainConfig(model="16:4", objective="l-alpha", alpha=0.5))
    assert Run(run.folder).config.objective == "l-alpha"
    settings = json.loads((run.folder / "config.json").read_text())
    del settings["version"]  # as it was before there were two meanings
    (run.folder / "config.json").write_text(json.dumps(settings))
    assert Run(run.folder).config == TrainConfig(**settings["config"] | {"objective": "renyi"})


def test_stop_and_resume_change_nothing(uninterrupted):
    """Stopped while it starts, then in the middle."""
    run = store.start(CONFIG)
    run.stop()
    wait_until(lambda: not run.status().alive)
    assert run.status().phase == "stopped" and run.records() == []
    assert checkpoints.read_card(run.checkpoint).progress["steps"] == 0
    run.resume()
    wait_until(lambda: len(run.records()) >= 3)
    done, left = run.progress()
    assert 0 < done < 1 and left > 0
    process = json.loads((run.folder / "status.json").read_text())["pid"]
    assert os.getpriority(os.PRIO_PROCESS, process) == min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)  # gives way
    run.stop()
    wait_until(lambda: not run.status().alive)
    assert run.status().phase == "stopped"
    assert 0 < checkpoints.read_card(run.checkpoint).progress["steps"] < 78
    with pytest.raises(RunError, match="is not running"):
        run.stop()
    run.prepare()
    assert worker.work(run).phase == "finished"
    assert_same(run, uninterrupted)


@pytest.mark.parametrize(("records", "save_seconds"), [(0, 0.0), (1, 0.0), (8, 0.0), (13, 0.0), (8, 1000.0)])
def test_a_killed_run_goes_on_from_its_last_save(uninterrupted, records, save_seconds):
    run = store.create(CONFIG)
    process = in_process(run, save_seconds)
    wait_until(lambda: run.status().total_steps and len(run.records()) >= records)
    process.kill()
    process.join()
    assert run.status() == queue.RunStatus("died", "its process ended without a message", 78)
    if save_seconds == 1000.0:
        assert not run.checkpoint.exists()  # nothing was saved: it begins again
    elif records > 1:  # the save that follows a record may not have come about
        assert checkpoints.read_card(run.checkpoint).progress["steps"] > 0
    run.prepare()
    assert worker.work(run).phase == "finished"
    assert_same(run, uninterrupted)


def test_a_run_killed_or_stopped_in_its_test_only_repeats_the_test(uninterrupted, monkeypatch):
    run = store.create(CONFIG)
    process = in_process(run)
    wait_until(lambda: run.status().phase == "evaluating")
    process.kill()
    process.join()
    assert run.status().phase == "died"
    assert checkpoints.read_card(run.checkpoint).metrics == {}
    evaluate = worker.evaluation.evaluate

    def stop_then_evaluate(*args, **kwargs):
        run.stop()
        return evaluate(*args, **kwargs)

    run.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(worker.evaluation, "evaluate", stop_then_evaluate)
        assert worker.work(run).phase == "stopped"
    run.prepare()
    assert worker.work(run, lambda *_: pytest.fail("it trained again")).phase == "finished"
    assert_same(run, uninterrupted)


def test_a_signal_saves_and_stops(uninterrupted):
    run = store.create(CONFIG)
    process = in_process(run, save_seconds=1000)
    wait_until(lambda: len(run.records()) >= 2)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0 and run.status().phase == "stopped"
    run.prepare()
    worker.work(run)
    assert_same(run, uninterrupted)


def test_only_one_process_works_on_a_run(monkeypatch):
    monkeypatch.setattr(queue, "LOCK_PATIENCE", 0.2)
    run = store.create(dataclasses.replace(CONFIG, epochs=10_000))
    process = in_process(run)
    wait_until(lambda: run.records())
    with pytest.raises(RunError, match="already running in another process"):
        worker.work(run)
    for forbidden in (run.resume, run.prepare, run.delete):
        with pytest.raises(RunError, match=r"is (already )?running"):
            forbidden()
    with pytest.raises(RunError, match="already running"):
        run._spawn()  # what two resumes at once come to
    assert run.status().phase == "running"
    run.stop()
    process.join()
    assert process.exitcode == 0 and run.status().phase == "stopped"


def test_missing_data_fail_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    run = store.start(dataclasses.replace(CONFIG, dataset="mnist"))
    wait_until(lambda: not run.status().alive)
    assert run.status().phase == "failed"
    assert "missing" in run.status().message and "data download mnist" in run.status().message
    wait_until(lambda: (run.folder / "log.txt").read_text() == f"error: {run.status().message}\n")
    assert run.progress() == (0.0, None)


def test_a_value_that_is_not_finite_fails_and_keeps_the_weights_before():
    run = store.create(dataclasses.replace(CONFIG, learning_rate=1e6))
    with pytest.raises(NonFiniteError):
        worker.work(run)
    status = run.status()
    assert status.phase == "failed" and status.total_steps == 78
    model, card = checkpoints.load(run.checkpoint)  # refuses what is not finite
    step = card.progress["steps"] + 1
    assert 1 < step < 78
    assert f"at step {step} (epoch {(step - 1) // 13 + 1}, batch {(step - 1) % 13 + 1} of 13" in status.message
    assert any(term in status.message for term in ("log p(x|h)", "log p(h)", "log q(h|x)", "gradient", "bound"))
    assert all(weight.isfinite().all() for weight in model.state_dict().values())


def test_an_unfinished_line_is_left_out_and_a_damaged_one_is_told():
    run = store.create(CONFIG)
    line = json.dumps(
        dict(step=5, epochs=0.4, bound=-1.0, valid_bound=None, active_units=None)
        | dict(images_per_second=1.0, seconds=1.0, learning_rate=1e-3)
    )
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(f"{line}\n{line[:30]}")
    assert [record.step for record in run.records()] == [5]
    metrics.write_text(f"{line[:30]}\n{line}\n")
    with pytest.raises(RunError, match=f"{run.name}.*metrics.jsonl cannot be read"):
        run.records()


def test_a_run_is_deleted_while_another_of_its_name_still_is():
    run = store.create(CONFIG)
    run.set_status("stopped")
    other = run.folder.with_name(f".deleted-{run.name}")
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"half way")
    run.delete()
    assert not run.folder.exists() and store.list_runs() == []


def test_a_run_is_listed_whatever_happens_to_its_folder():
    """Listed and asked for their status while others come and go; damaged ones say so when asked for more."""
    damaged, silent = store.create(CONFIG), store.create(CONFIG)
    (damaged.folder / "config.json").write_text("{")
    (silent.folder / "status.json").unlink()
    shutil.copytree(silent.folder, store.runs_dir() / "not-a-run", ignore=lambda *_: ["config.json"])
    over, errors = threading.Event(), []

    def come_and_go():
        try:
            while not over.is_set():
                run = store.create(CONFIG)
                run.set_status("stopped")
                run.delete()
        except Exception as error:
            errors.append(error)

    def look():
        try:
            while not over.is_set():
                for run in store.list_runs():
                    run.status()
                    run.records()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=target) for target in (come_and_go, come_and_go, look, look)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {run.name for run in store.list_runs()} == {damaged.name, silent.name}
    assert silent.status() == queue.RunStatus("died", "its status.json cannot be read")
    with pytest.raises(RunError, match=f"{damaged.name}: its config.json cannot be read"):
        _ = damaged.config
    with pytest.raises(RunError, match="there are: 2"):
        store.get("another")


def test_looking_at_a_dead_run_from_many_threads_never_takes_it_for_alive():
    run = store.create(CONFIG)
    run.set_status("running")
    (run.folder / "lock").touch()
    phases = []

    def look():
        phases.extend(run.status().phase for _ in range(100))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert phases == ["died"] * 800


def test_runs_made_in_the_same_second_have_names_of_their_own():
    made = [store.create(CONFIG) for _ in range(3)]
    assert len({run.name for run in made}) == 3
    assert all(run.config == CONFIG and run.device == "cpu" for run in made)
    assert store.get(made[1].name) == made[1]


def test_what_a_deleted_run_says():
    run = store.create(CONFIG)
    with pytest.raises(RunError, match="is running: stop it first"):  # this process is about to start it
        run.delete()
    shutil.rmtree(run.folder)
    assert not run.status().alive and run.records() == []
    with pytest.raises(RunError, match="has been deleted"):
        worker.work(run)
    assert not run.folder.exists()


def test_data_sets_of_runs_are_never_downloaded_behind_ones_back(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("iwae.data.downloads.DataFile.fetch", lambda *_: pytest.fail("it went to the network"))
    with pytest.raises(datasets.DataError, match="mnist"):
        worker.work(store.create(dataclasses.replace(CONFIG, dataset="mnist")))


LONG = dataclasses.replace(CONFIG, epochs=10_000)  # ends when it is stopped


@pytest.fixture
def one_place(monkeypatch):
    """One run trains at a time; what is left of them ends with the test."""
    monkeypatch.setenv("IWAE_MAX_RUNS", "1")
    yield
    for run in reversed(store.list_runs()):
        if run.status().alive:
            run.stop()
    wait_until(lambda: not any(run.status().alive for run in store.list_runs()))


def started(*configs: TrainConfig) -> list[Run]:
    """Runs started one after the other, once all but the first wait."""
    made = [store.start(config) for config in configs]
    wait_until(lambda: made[0].records() and all(run.status().phase == "waiting" for run in made[1:]))
    return made


def pid(run: Run) -> int:
    """Of the run's process, as it says."""
    return json.loads((run.folder / "status.json").read_text())["pid"]


def test_runs_wait_for_their_turn_in_order(one_place, capsys):
    first, second, third = started(LONG, LONG, LONG)
    assert [queue.position(run) for run in (first, second, third)] == ["", "1st in the queue", "2nd in the queue"]
    assert [run.name for run in queue.waiting_runs(store.runs_dir())] == [second.name, third.name]
    assert second.records() == [] and second.progress() == (0.0, None)
    assert use(pid(second)).resident < 60e6 < use(pid(first)).resident  # it has not loaded torch
    with pytest.raises(RunError, match="already running"):
        second.resume()
    with pytest.raises(RunError, match="stop it first"):
        second.delete()
    assert main(["runs", "list"]) == 0
    assert f"{third.name:45} waiting, 2nd in the queue" in capsys.readouterr().out
    first.stop()
    wait_until(lambda: second.records())
    assert first.status().phase == "stopped" and third.status().phase == "waiting"
    assert queue.position(third) == "1st in the queue"
    os.kill(pid(second), signal.SIGKILL)  # its place is free again
    wait_until(lambda: third.records())
    assert second.status().phase == "died"


def test_a_run_that_waits_can_be_stopped_or_killed_and_comes_again_last(one_place):
    first, second, third, fourth = started(LONG, LONG, LONG, LONG)
    second.stop()
    wait_until(lambda: not second.status().alive)
    assert second.status() == queue.RunStatus("stopped") and not second.checkpoint.exists()
    os.kill(pid(third), signal.SIGKILL)
    wait_until(lambda: third.status().phase == "died")
    assert queue.position(fourth) == "1st in the queue"
    second.resume()
    wait_until(lambda: second.status().phase == "waiting")
    assert queue.position(second) == "2nd in the queue"
    os.kill(pid(fourth), signal.SIGTERM)  # as a stop
    first.stop()
    wait_until(lambda: second.records())
    assert fourth.status().phase == "stopped"


def test_a_run_that_has_waited_ends_as_any_other(one_place, uninterrupted):
    first, second = started(LONG, CONFIG)
    first.stop()
    wait_until(lambda: not second.status().alive)
    assert_same(second, uninterrupted)


def test_the_limit_leaves_a_core_for_the_app_and_can_be_set(monkeypatch):
    monkeypatch.delenv("IWAE_MAX_RUNS", raising=False)
    for count, places in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(cores, "count", lambda count=count: count)
        assert queue.max_running() == places
    monkeypatch.setenv("IWAE_MAX_RUNS", "3")
    assert queue.max_running() == 3
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("IWAE_MAX_RUNS", wrong)
        with pytest.raises(RunError, match=f"IWAE_MAX_RUNS is '{wrong}'; it must be a whole number of at least 1"):
            store.start(CONFIG)
    assert store.list_runs() == []
