"""What a run's process does: train from the last saved state, save now and then, and measure the model in the end."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TextIO

import torch

from iwae import checkpoints
from iwae.data import datasets
from iwae.evaluation import metrics as evaluation
from iwae.kernels import threads
from iwae.model import Model
from iwae.runs import snapshots
from iwae.runs.queue import RunError, RunStatus
from iwae.runs.store import Run
from iwae.system import files, streams
from iwae.system.processes import STOP_SIGNALS
from iwae.training.loop import NonFiniteError, Record, Training

SAVE_SECONDS = 10.0  # between saves: what a crash may cost
TEST_IMAGES, TEST_SAMPLES = 1000, 1000  # of the quick test NLL at the end of a run

OnRecord = Callable[[Record, Training], None]


def work(
    run: Run,
    on_record: OnRecord = lambda record, training: None,
    *,
    training_type: type[Training] = Training,
    save_seconds: float | None = None,
) -> RunStatus:
    """Train a run to its end in this process, from its last saved state if it has one.

    Ends early, keeping everything, on SIGTERM, SIGHUP, Ctrl-C or ``Run.stop``; a second Ctrl-C ends it at once. Raises
    RunError when another process works on it, and whatever training raises, after the run's status says so.
    ``training_type`` does the training; ``save_seconds`` between two saves replace SAVE_SECONDS.
    """
    with run.claim(), Signals() as signals:
        files.remove_temporary_files(run.folder)  # what a killed process was writing
        check_folder = run.folder_guard()
        run.set_status("running")
        every = SAVE_SECONDS if save_seconds is None else save_seconds

        def stop() -> bool:
            check_folder()  # else training would continue for a folder that is gone
            return signals.caught or run.stop_requested

        try:
            phase = _train_and_test(run, training_type, on_record, stop, every)
        except Exception as error:
            with suppress(OSError, RunError):  # a full disk has no room for these words either
                run.set_status("failed", str(error) or type(error).__name__)
            raise
        run.set_status(phase)
    return run.status()


def print_record(record: Record, training: Training) -> None:
    """Print a record as a line of text."""
    validation = "" if record.valid_bound is None else f"  validation {record.valid_bound:.3f}"
    print(
        f"step {record.step:,} of {training.total_steps:,}  epoch {record.epochs:.2f}  bound {record.bound:.3f}"
        f"{validation} nats  {record.images_per_second:,.0f} images/s",
        flush=True,
    )


def main(folder: Path) -> int:
    """Train the run of this folder in a process of its own, printing its records and how it ends, an error on one line;
    returns the exit status."""
    with streams.robust_streams():
        threads.limit()
        try:
            print(work(Run(folder), print_record).phase)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:  # RuntimeError: torch's
            print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
            return 1
    return 0


def measure(run: Run, images: int, samples: int) -> bool:
    """Re-evaluate a finished run's model on this many test images and draws; False if it was asked to stop.

    Raises RunError when another process works on it.
    """
    with run.claim():
        data = datasets.load(run.config.dataset, download=False)
        model, card = checkpoints.load(run.checkpoint, run.device)
        try:
            _test(run, data, model, card, lambda: run.stop_requested, images, samples)
        except _Stopped:
            return False
    return True


def _train_and_test(
    run: Run, training_type: type[Training], on_record: OnRecord, stop: Callable[[], bool], save_seconds: float
) -> str:
    """The whole of a run; returns the phase it ends in."""
    data = datasets.load(run.config.dataset, download=False)
    training = training_type(run.config, data, run.device, run.start)
    _restore(run, training)
    run.set_status("running", total_steps=training.total_steps)
    planned = snapshots.plan(run.config.epochs, run.max_snapshots, training.model)
    _look_back(run, training, planned)
    saved = time.monotonic()
    loggers = run.logs.loggers(run.name, run.records(), run.created) if run.logs else []
    with (
        (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics,
        closing(training.run(stop, callbacks=loggers)) as records,
    ):
        try:
            for record in records:
                metrics.write(json.dumps(dataclasses.asdict(record)) + "\n")
                metrics.flush()
                on_record(record, training)
                stop()  # raises if the folder is gone: writing now would create it again
                if record.valid_bound is not None:
                    _look_back(run, training, planned)
                if time.monotonic() - saved > save_seconds:
                    _save(run, training, metrics, stop)
                    saved = time.monotonic()
        except NonFiniteError:
            _save(run, training, metrics, stop)  # the weights before the bad step
            raise
        _save(run, training, metrics, stop)
    if not training.finished:
        return "stopped"
    run.set_status("evaluating")
    try:
        _test(run, data, training.kept_model(), training.card(), stop)
    except _Stopped:
        return "stopped"
    return "finished"


def _save(run: Run, training: Training, metrics: TextIO, stop: Callable[[], bool]) -> None:
    """The state last: what it says has been done is then on the disk."""
    stop()  # as above
    os.fsync(metrics.fileno())
    checkpoints.save(run.checkpoint, training.kept_model(), training.card())
    tensors, values = training.state()
    checkpoints.save_tensors(_state(run), tensors, "state", values)


def _look_back(run: Run, training: Training, planned: list[int]) -> None:
    """Take a snapshot if one is due."""
    if run.snapshots.due(planned, training.step / training.steps_per_epoch, training.steps_per_epoch):
        card = training.card()
        now = card.progress | {"valid_bound": training.valid_bound}  # not that of the best model so far
        run.snapshots.add(training.latest_model(), dataclasses.replace(card, progress=now))


def _restore(run: Run, training: Training) -> None:
    """Back to the last saved state, and the records and snapshots with it."""
    if _state(run).exists():
        training.restore(*checkpoints.load_tensors(_state(run), "state"))
    kept = [record for record in run.records() if record.step <= training.step]
    files.write(run.folder / "metrics.jsonl", "".join(json.dumps(dataclasses.asdict(r)) + "\n" for r in kept))
    run.snapshots.truncate(training.step)


def _test(
    run: Run,
    data: datasets.Dataset,
    model: Model,
    card: checkpoints.Card,
    stop: Callable[[], bool],
    images: int = TEST_IMAGES,
    samples: int = TEST_SAMPLES,
) -> None:
    """The NLL on test images chosen by a fixed seed, into the finished model's card."""

    def progress(done: int, total: int) -> None:
        if stop():
            raise _Stopped

    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:images]
    x = data.x("test", model.likelihood.binary)[order].to(model.device)
    metrics = evaluation.evaluate(model, x, samples=samples, progress=progress).summary()
    checkpoints.save(run.checkpoint, model, dataclasses.replace(card, metrics=metrics))


class _Stopped(Exception):
    """The test was interrupted: nothing is lost but the test."""


class Signals:
    """Turns the first of STOP_SIGNALS into a flag while there is something to save; the next one acts as usual."""

    caught = False

    def __enter__(self) -> "Signals":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self.before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, frame: Any) -> None:
        self.caught = True
        self.__exit__()

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _state(run: Run) -> Path:
    return run.folder / f"state{checkpoints.SUFFIX}"
