"""Training runs: a process and a folder each, so that a run outlives the page, the tab or the shell it came from.

A run's folder holds:

    config.json              the TrainConfig and the device
    metrics.jsonl            one Record a line
    state.safetensors        all that is needed to go on bit for bit
    checkpoint.safetensors   the model so far, its card in the header
    status.json              the last word of the process on itself
    log.txt                  what the process printed
    lock                     held while a process works on the run: free and unfinished means that it died
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from iwae import checkpoints, datasets, evaluation, files
from iwae.training import Record, TrainConfig, Training

SAVE_SECONDS = 10.0  # between saves: what a power cut may cost
TEST_IMAGES, TEST_SAMPLES = 1000, 1000  # of the quick test NLL at the end of a run
LOCK_PATIENCE = 5.0  # seconds; whoever looks whether a run is alive holds its lock for an instant


class RunError(ValueError):
    """A run that cannot do what was asked of it; the message says why."""


def runs_dir() -> Path:
    """Where runs are kept: IWAE_RUNS_DIR, or ``runs`` beside the package."""
    return Path(os.environ.get("IWAE_RUNS_DIR") or Path(__file__).parent.parent / "runs")


@dataclass(frozen=True)
class Status:
    """How a run stands. ``phase``: starting, running, evaluating, finished, stopped, failed or died."""

    phase: str
    message: str = ""  # why it failed
    total_steps: int = 0

    @property
    def alive(self) -> bool:
        return self.phase in ("starting", "running", "evaluating")


@dataclass(frozen=True)
class Run:
    """A run's folder, read afresh at every call."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"checkpoint{checkpoints.SUFFIX}"

    @cached_property
    def config(self) -> TrainConfig:
        return TrainConfig.from_dict(self._settings["config"])

    @property
    def device(self) -> str:
        return self._settings["device"]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    def status(self) -> Status:
        """How it stands now; ``died`` when its process is gone without a last word."""
        said = _read_json(self.folder / "status.json")
        status = Status(said.get("phase", "starting"), said.get("message", ""), said.get("total_steps", 0))
        if not status.alive or self._locked():
            return status
        if status.phase == "starting" and _exists(said.get("pid")):
            return status
        again = _read_json(self.folder / "status.json")  # it may have ended between the two looks
        if again != said:
            return self.status()
        return dataclasses.replace(status, phase="died", message="its process ended without a word")

    def records(self) -> list[Record]:
        """All records so far; a line that is still being written is left out."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().split("\n")
        except FileNotFoundError:
            return []
        return [Record(**json.loads(line)) for line in lines[:-1]]  # the last is empty or unfinished

    def progress(self) -> tuple[float, float | None]:
        """(share done in [0, 1], seconds left or None while unknown), by steps or by minutes, whichever ends first."""
        status, records = self.status(), self.records()
        if status.phase == "finished":
            return 1.0, 0.0
        if not records or not status.total_steps:
            return 0.0, None
        last = records[-1]
        done = last.step / status.total_steps
        if self.config.minutes is not None:
            done = max(done, last.seconds / (60 * self.config.minutes))
        done = min(done, 1.0)
        return done, last.seconds * (1 - done) / done

    def stop(self) -> None:
        """Ask its process to save and stop; returns at once."""
        if not self.status().alive:
            raise RunError(f"run {self.name} is not running")
        files.write(self.folder / "stop", "")

    def resume(self) -> None:
        """Go on from the last saved state in a new process."""
        status = self.status()
        if status.alive:
            raise RunError(f"run {self.name} is already running")
        if status.phase == "finished":
            raise RunError(f"run {self.name} is finished")
        self._spawn()

    def delete(self) -> None:
        """Remove the run with all its files; refuses while it is running."""
        if self.status().alive:
            raise RunError(f"run {self.name} is running: stop it first")
        shutil.rmtree(self.folder)

    def _spawn(self) -> None:
        (self.folder / "stop").unlink(missing_ok=True)
        self._say("starting")
        threads = str(max(1, (os.cpu_count() or 2) // 2))  # leaves room for the page that shows it
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "iwae", "runs", "work", self.name],
                cwd=Path(__file__).parent.parent,
                env=environment | {"IWAE_RUNS_DIR": str(self.folder.parent.resolve())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # outlives the server, and its Ctrl-C
            )
        if not self._locked():
            self._say("starting", pid=process.pid)
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie

    def _say(self, phase: str, **more: Any) -> None:
        files.write(self.folder / "status.json", json.dumps({"phase": phase, "pid": os.getpid()} | more))

    def _locked(self) -> bool:
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return False
        except Timeout:
            return True


def create(config: TrainConfig, device: str = "cpu") -> Run:
    """A new run's folder, not yet started."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{config.dataset}-{config.objective}-k{config.k}-s{config.seed}"
    folder, number = runs_dir() / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            folder = runs_dir() / f"{name}-{number}"
    settings = {"config": dataclasses.asdict(config), "device": device}
    files.write(folder / "config.json", json.dumps(settings, indent=1))
    return Run(folder)


def start(config: TrainConfig, device: str = "cpu") -> Run:
    """Train in a process of its own; returns at once."""
    run = create(config, device)
    run._spawn()
    return run


def get(name: str) -> Run:
    """The run of this name; raises RunError with the names there are."""
    runs = {run.name: run for run in list_runs()}
    if name not in runs:
        raise RunError(f"there is no run {name!r} in {runs_dir()}; there are: {', '.join(runs) or 'none'}")
    return runs[name]


def list_runs() -> list[Run]:
    """All runs, newest first; folders that hold none are passed over."""
    folders = runs_dir().glob("*/config.json")
    return [Run(path.parent) for path in sorted(folders, reverse=True)]


def work(run: Run, on_record: Callable[[Record, Training], None] = lambda record, training: None) -> Status:
    """Train a run to its end in this process, from its last saved state if it has one.

    Ends early, keeping everything, on SIGTERM, Ctrl-C, or ``Run.stop``. Raises RunError when another process
    works on it, and whatever training raises, after the run's status says so.
    """
    try:
        lock = FileLock(run.folder / "lock", timeout=LOCK_PATIENCE)
        with lock, _Signals() as signals:
            return _work(run, on_record, lambda: signals.caught or (run.folder / "stop").exists())
    except Timeout:
        raise RunError(f"run {run.name} is already running in another process") from None


def _work(run: Run, on_record: Callable[[Record, Training], None], stop: Callable[[], bool]) -> Status:
    run._say("running")
    try:
        data = datasets.load(run.config.dataset)
        training = Training(run.config, data, run.device)
        _restore(run, training)
        run._say("running", total_steps=training.total_steps)
        saved = time.monotonic()
        with (run.folder / "metrics.jsonl").open("a") as metrics:
            for record in training.run(stop):
                metrics.write(json.dumps(dataclasses.asdict(record)) + "\n")
                metrics.flush()
                on_record(record, training)
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(run, training)
                    saved = time.monotonic()
        _save(run, training)
        phase = "stopped"
        if training.finished:
            run._say("evaluating", total_steps=training.total_steps)
            _test(run, data, training)
            phase = "finished"
        run._say(phase, total_steps=training.total_steps)
    except Exception as error:
        if "training" in locals() and training.step:
            _save(run, training)
        run._say("failed", message=str(error), total_steps=getattr(locals().get("training"), "total_steps", 0))
        raise
    return run.status()


def _save(run: Run, training: Training) -> None:
    """The model first: a run whose state is newer than its model could never be told from a whole one."""
    checkpoints.save(run.checkpoint, training.kept_model(), training.card())
    tensors, values = training.state()
    checkpoints.save_tensors(_state(run), tensors, "state", values)


def _restore(run: Run, training: Training) -> None:
    """Back to the last saved state, and the records with it."""
    step = 0
    if _state(run).exists():
        training.restore(*checkpoints.load_tensors(_state(run), "state"))
        step = training.step
    kept = [json.dumps(dataclasses.asdict(record)) + "\n" for record in run.records() if record.step <= step]
    files.write(run.folder / "metrics.jsonl", "".join(kept))


def _test(run: Run, data: datasets.Dataset, training: Training) -> None:
    """A quick NLL on test images for the finished model's card."""
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:TEST_IMAGES]
    model = training.kept_model()
    x = data.binary("test")[order].to(training.device)
    metrics = evaluation.evaluate(model, x, samples=TEST_SAMPLES).summary()
    checkpoints.save(run.checkpoint, model, dataclasses.replace(training.card(), metrics=metrics))


class _Signals:
    """Turns SIGTERM and SIGINT into a flag while a run is at work."""

    caught = False

    def __enter__(self) -> "_Signals":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, frame: Any) -> None:
        self.caught = True

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _state(run: Run) -> Path:
    return run.folder / f"state{checkpoints.SUFFIX}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def _exists(pid: int | None) -> bool:
    """Whether a process of this number exists."""
    try:
        os.kill(pid or -1, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return pid is not None
