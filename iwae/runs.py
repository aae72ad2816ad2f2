"""Training runs: a process and a folder each, so that a run outlives the page, the tab or the shell it came from.

A run's folder holds:

    config.json              the TrainConfig, the device, and where TensorBoard's log goes
    metrics.jsonl            one Record a line
    state.safetensors        all that is needed to go on bit for bit
    checkpoint.safetensors   the model so far, its card in the header
    status.json              the last word of the process on itself
    log.txt                  what the process printed
    stop                     there while somebody asks the process to stop
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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import torch
from filelock import FileLock, Timeout

from iwae import checkpoints, datasets, evaluation, files, tensorboard
from iwae.model import Model
from iwae.training import NonFiniteError, Record, TrainConfig, Training

SAVE_SECONDS = 10.0  # between saves: what a crash may cost
TEST_IMAGES, TEST_SAMPLES = 1000, 1000  # of the quick test NLL at the end of a run
LOCK_PATIENCE = 2.0  # seconds; whoever looks whether a run is alive holds its lock for an instant
PROJECT = Path(__file__).parent.parent

OnRecord = Callable[[Record, Training], None]
_looking = threading.Lock()  # two threads that look at once would each take the other for the run's process


class RunError(ValueError):
    """A run that cannot do what was asked of it; the message says why."""


def runs_dir() -> Path:
    """Where runs are kept: IWAE_RUNS_DIR, or ``runs`` beside the package."""
    return Path(os.environ.get("IWAE_RUNS_DIR") or PROJECT / "runs")


@dataclass(frozen=True)
class Status:
    """How a run stands. ``phase``: starting, running, evaluating, finished, stopped, failed or died."""

    phase: str
    message: str = ""  # why it failed
    total_steps: int = 0  # 0 while unknown

    @property
    def alive(self) -> bool:
        return self.phase in ("starting", "running", "evaluating")


@dataclass(frozen=True)
class Run:
    """A run's folder, read afresh at every call but for its settings, which never change."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """The model so far; there from the first save on."""
        return self.folder / f"checkpoint{checkpoints.SUFFIX}"

    @property
    def config(self) -> TrainConfig:
        """How it is trained; raises RunError when config.json cannot be read."""
        return self._settings[0]

    @property
    def device(self) -> str:
        """Where it is trained; raises RunError when config.json cannot be read."""
        return self._settings[1]

    @property
    def tensorboard(self) -> Path | None:
        """The folder of its TensorBoard log, if it keeps one; raises RunError when config.json cannot be read."""
        return self._settings[2]

    @cached_property
    def _settings(self) -> tuple[TrainConfig, str, Path | None]:
        if links := [path.name for path in self.folder.glob("*") if path.is_symlink()]:
            raise RunError(f"run {self.name}: {files.shown(links[0])} is a link, which is not followed")
        try:
            settings = json.loads((self.folder / "config.json").read_text())
            config, device = TrainConfig.from_dict(settings["config"]), settings["device"]
            log = settings.get("tensorboard")  # not there in older runs
            return config, device, Path(log) / self.name if log else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"run {self.name}: its config.json cannot be read ({error})") from None

    def status(self) -> Status:
        """How it stands now; ``died`` when its process is gone without a last word."""
        said = self._said()
        if "phase" not in said:
            return Status("died", "its status.json cannot be read")
        status = Status(said["phase"], said.get("message", ""), said.get("total_steps", 0))
        if not status.alive or self._locked() or (status.phase == "starting" and _exists(said.get("pid"))):
            return status
        if self._said() != said:  # it spoke between the two looks
            return self.status()
        return dataclasses.replace(status, phase="died", message="its process ended without a word")

    def records(self) -> list[Record]:
        """All records so far; a line that is still being written is left out. Raises RunError for other lines."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().split("\n")
        except FileNotFoundError:
            return []
        try:
            return [Record(**json.loads(line)) for line in lines[:-1]]  # the last is empty or unfinished
        except (ValueError, TypeError) as error:
            raise RunError(f"run {self.name}: its metrics.jsonl cannot be read ({error})") from None

    def progress(self) -> tuple[float, float | None]:
        """(share done in [0, 1], seconds left or None while unknown)."""
        status, records = self.status(), self.records()
        if status.phase == "finished":
            return 1.0, 0.0
        if not records or not status.total_steps:
            return 0.0, None
        return progress_at(self.config, records[-1], status.total_steps)

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody waits for its process to save and stop."""
        return (self.folder / "stop").exists()

    def stop(self) -> None:
        """Ask its process to save and stop; returns at once."""
        if not self.status().alive:
            raise RunError(f"run {self.name} is not running")
        files.write(self.folder / "stop", "")

    def prepare(self) -> None:
        """Clear the way to go on; raises RunError when it is running or finished."""
        status = self.status()
        if status.alive:
            raise RunError(f"run {self.name} is already running")
        if status.phase == "finished":
            raise RunError(f"run {self.name} is finished")
        (self.folder / "stop").unlink(missing_ok=True)

    def resume(self) -> None:
        """Go on from the last saved state in a new process; returns at once."""
        self.prepare()
        self._spawn()

    def delete(self) -> None:
        """Remove the run with all its files (a TensorBoard log elsewhere stays); refuses while it is running."""
        if self.status().alive:
            raise RunError(f"run {self.name} is running: stop it first")
        gone = self.folder.with_name(f".deleted-{self.name}")
        with self._claim():
            self.folder.rename(gone)  # at once, whoever is looking
            shutil.rmtree(gone)

    def _spawn(self) -> None:
        threads = str(max(1, (os.cpu_count() or 2) // 2))  # leaves room for the page that shows it
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
        with self._claim(), (self.folder / "log.txt").open("ab") as log:  # the process waits for the claim
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "iwae", "runs", "work", self.name],
                    env=environment | {"PYTHONPATH": path, "IWAE_RUNS_DIR": str(self.folder.parent.resolve())},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # outlives the server, and its Ctrl-C
                )
            except OSError as error:
                self._say("failed", f"no process could be started ({error})")
                raise
            self._say("starting", pid=process.pid)
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie

    def _say(self, phase: str, message: str = "", **more: Any) -> None:
        said = self._said() | {"phase": phase, "message": message, "pid": os.getpid()} | more
        files.write(self.folder / "status.json", json.dumps(said))

    def _said(self) -> dict[str, Any]:
        """The last word of its process, empty if there is none that can be read."""
        try:
            said = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    @contextmanager
    def _claim(self) -> Iterator[None]:
        """Work on the run alone; raises RunError while another process does."""
        if not self.folder.exists():
            raise RunError(f"run {self.name} has been deleted")
        try:
            lock = FileLock(self.folder / "lock", timeout=LOCK_PATIENCE).acquire()
        except Timeout:
            raise RunError(f"run {self.name} is already running in another process") from None
        with lock:
            yield

    def _locked(self) -> bool:
        lock = self.folder / "lock"
        if not lock.exists():  # FileLock would make it, and the folder
            return False
        try:
            with _looking, FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True


def create(config: TrainConfig, device: str = "cpu", log: Path | None = None, *, folder: Path | None = None) -> Run:
    """A new run, not yet started: in ``folder``, or in one of its own in ``runs_dir()``.

    With ``log``, TensorBoard finds the run in ``log/NAME``; raises MissingError where that package is not installed.
    """
    if log:
        tensorboard.need()
    run = Run(folder or _new_folder(config))
    run._say("starting")
    settings = {"config": dataclasses.asdict(config), "device": device}
    settings["tensorboard"] = str(log.absolute()) if log else None
    files.write(run.folder / "config.json", json.dumps(settings, indent=1))  # the last: it makes the folder a run
    return run


def _new_folder(config: TrainConfig) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{config.dataset}-{config.objective}-k{config.k}-s{config.seed}"
    folder, number = runs_dir() / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = runs_dir() / f"{name}-{number}"


def start(config: TrainConfig, device: str = "cpu", log: Path | None = None) -> Run:
    """``create`` it and train in a process of its own; returns at once."""
    run = create(config, device, log)
    run._spawn()
    return run


def get(name: str) -> Run:
    """The run of this name; raises RunError with names that there are."""
    names = [run.name for run in list_runs()]
    if name not in names:
        more = ", …" if len(names) > 5 else ""
        raise RunError(f"there is no run {name!r} in {runs_dir()}; there are: {', '.join(names[:5]) or 'none'}{more}")
    return Run(runs_dir() / name)


def list_runs() -> list[Run]:
    """All runs, newest first; folders that hold none, and links to other places, are passed over."""
    found = sorted(runs_dir().glob("[!.]*/config.json"), reverse=True)
    return [Run(path.parent) for path in found if files.inside(path.parent, runs_dir())]


def progress_at(config: TrainConfig, record: Record, total_steps: int) -> tuple[float, float]:
    """(share done in (0, 1], seconds left) at a record: by steps or by minutes, whichever ends first."""
    done = record.step / total_steps
    if config.minutes is not None:
        done = max(done, record.seconds / (60 * config.minutes))
    done = min(done, 1.0)
    return done, record.seconds * (1 - done) / done


def work(
    run: Run,
    on_record: OnRecord = lambda record, training: None,
    *,
    training_type: type[Training] = Training,
    save_seconds: float | None = None,
) -> Status:
    """Train a run to its end in this process, from its last saved state if it has one.

    Ends early, keeping everything, on SIGTERM, Ctrl-C or ``Run.stop``; a second Ctrl-C ends it at once. Raises
    RunError when another process works on it, and whatever training raises, after the run's status says so.
    ``training_type`` does the training; ``save_seconds`` between two saves replace SAVE_SECONDS.
    """
    with run._claim(), Signals() as signals:
        files.clear(run.folder)  # what a killed process was writing
        run._say("running")
        every = SAVE_SECONDS if save_seconds is None else save_seconds
        try:
            phase = _train_and_test(run, training_type, on_record, lambda: signals.caught or run.asked_to_stop, every)
        except Exception as error:
            with suppress(OSError):  # a full disk has no room for these words either
                run._say("failed", str(error) or type(error).__name__)
            raise
        run._say(phase)
    return run.status()


def measure(run: Run, images: int, samples: int) -> bool:
    """Test a finished run's model anew, with so many test images and draws; False if it was asked to stop.

    Raises RunError when another process works on it.
    """
    with run._claim():
        data = datasets.load(run.config.dataset, download=False)
        model, card = checkpoints.load(run.checkpoint, run.device)
        try:
            _test(run, data, model, card, lambda: run.asked_to_stop, images, samples)
        except _Stopped:
            return False
    return True


def _train_and_test(
    run: Run, training_type: type[Training], on_record: OnRecord, stop: Callable[[], bool], save_seconds: float
) -> str:
    """The whole of a run; returns the phase it ends in."""
    data = datasets.load(run.config.dataset, download=False)
    training = training_type(run.config, data, run.device)
    _restore(run, training)
    run._say("running", total_steps=training.total_steps)
    saved = time.monotonic()
    with (run.folder / "metrics.jsonl").open("a") as metrics, _log(run) as log:
        try:
            for record in training.run(stop):
                metrics.write(json.dumps(dataclasses.asdict(record)) + "\n")
                metrics.flush()
                log(record)
                on_record(record, training)
                if time.monotonic() - saved > save_seconds:
                    _save(run, training, metrics)
                    saved = time.monotonic()
        except NonFiniteError:
            _save(run, training, metrics)  # the weights before the bad step
            raise
        _save(run, training, metrics)
    if not training.finished:
        return "stopped"
    run._say("evaluating")
    try:
        _test(run, data, training.kept_model(), training.card(), stop)
    except _Stopped:
        return "stopped"
    return "finished"


def _log(run: Run) -> AbstractContextManager[Callable[[Record], None]]:
    """Writes records for TensorBoard if the run keeps such a log; those so far are written anew."""
    if run.tensorboard is None:
        return nullcontext(lambda record: None)
    started = (run.folder / "config.json").stat().st_mtime
    return tensorboard.log(run.tensorboard, run.config, run.records(), started)


def _save(run: Run, training: Training, metrics: TextIO) -> None:
    """The state last: what it says has been done is then on the disk."""
    os.fsync(metrics.fileno())
    checkpoints.save(run.checkpoint, training.kept_model(), training.card())
    tensors, values = training.state()
    checkpoints.save_tensors(_state(run), tensors, "state", values)


def _restore(run: Run, training: Training) -> None:
    """Back to the last saved state, and the records with it."""
    if _state(run).exists():
        training.restore(*checkpoints.load_tensors(_state(run), "state"))
    kept = [record for record in run.records() if record.step <= training.step]
    files.write(run.folder / "metrics.jsonl", "".join(json.dumps(dataclasses.asdict(r)) + "\n" for r in kept))


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
    x = data.binary("test")[order].to(model.device)
    metrics = evaluation.evaluate(model, x, samples=samples, progress=progress).summary()
    checkpoints.save(run.checkpoint, model, dataclasses.replace(card, metrics=metrics))


class _Stopped(Exception):
    """The test was interrupted: nothing is lost but the test."""


class Signals:
    """Turns the first SIGTERM or SIGINT into a flag while there is something to save; the next acts as ever."""

    caught = False

    def __enter__(self) -> "Signals":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
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


def _exists(pid: int | None) -> bool:
    """Whether a process of one's own has this number."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
