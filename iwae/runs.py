"""Training runs: a process and a folder each, so that a run outlives the page, the tab or the shell it came from.

A run's folder holds:

    config.json              the TrainConfig, the device, where TensorBoard's log goes, and how many snapshots to take
    metrics.jsonl            one Record a line
    state.safetensors        all that is needed to go on bit for bit
    checkpoint.safetensors   the model so far, its card in the header
    snapshots/               the model at a few earlier moments (iwae/snapshots.py)
    status.json              the last word of the process on itself
    log.txt                  what the process printed
    stop                     there while somebody asks the process to stop
    lock                     held while a process works on the run: free and unfinished means that it died

What the process does is in iwae/worker.py; how it stands and how it waits for its turn, in iwae/turns.py.
"""

import dataclasses
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from iwae import checkpoints, cores, files, launcher, paths, snapshots, step_memory, tensorboard, turns
from iwae.config import TrainConfig
from iwae.paths import runs_dir
from iwae.snapshots import Album
from iwae.training import Record
from iwae.turns import Folder, RunError


@dataclass(frozen=True)
class Run(Folder):
    """A run's folder, read afresh at every call but for its settings, which never change."""

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

    @property
    def snapshots(self) -> int:
        """How many snapshots it takes, at most; raises RunError when config.json cannot be read."""
        return self._settings[3]

    @property
    def album(self) -> Album:
        """Its snapshots so far."""
        return Album(self.folder / "snapshots")

    @property
    def _settings(self) -> tuple[TrainConfig, str, Path | None, int]:
        # not a functools.cached_property: before Python 3.12 the threads of all pages would wait for one lock of it
        if "_read" not in self.__dict__:
            self.__dict__["_read"] = self._read_settings()
        return self.__dict__["_read"]

    def _read_settings(self) -> tuple[TrainConfig, str, Path | None, int]:
        if links := [path.name for path in self.folder.glob("*") if path.is_symlink()]:
            raise RunError(f"run {self.name}: {files.shown(links[0])} is a link, which is not followed")
        try:
            settings = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
            version = settings.get("version", 1)  # not there in older runs
            config = TrainConfig.from_dict(checkpoints.upgraded(settings["config"], version))
            device = settings["device"]
            log = settings.get("tensorboard")  # not there in older runs, nor are snapshots
            return config, device, Path(log) / self.name if log else None, int(settings.get("snapshots", 0))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"run {self.name}: its config.json cannot be read ({error})") from None

    def records(self) -> list[Record]:
        """All records so far; a line that is still being written is left out. Raises RunError for other lines."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
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

    def prepare(self) -> None:
        """Clear the way to go on; raises RunError when it is running or finished."""
        status = self.status()
        if status.alive:
            raise RunError(f"run {self.name} is already running")
        if status.phase == "finished":
            raise RunError(f"run {self.name} is finished")
        (self.folder / "stop").unlink(missing_ok=True)

    def resume(self) -> None:
        """Go on from the last saved state in a new process, when it is its turn; returns at once."""
        turns.limit()  # a wrong one is said here, not in the log
        self.prepare()
        self._spawn()

    def delete(self) -> None:
        """Remove the run with all its files (a TensorBoard log elsewhere stays); refuses while it is running."""
        if self.status().alive:
            raise RunError(f"run {self.name} is running: stop it first")
        gone = self.folder.with_name(f".deleted-{self.name}-{uuid.uuid4().hex}")  # its name may be taken again at once
        with self.claim():
            self.folder.rename(gone)  # at once, whoever is looking
            shutil.rmtree(gone)

    def _spawn(self) -> None:
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores.count() // 2))),  # some for the page
            "IWAE_RUNS_DIR": str(self.folder.parent.resolve()),
        }
        with self.claim():  # the process waits for it
            try:
                process = launcher.start(
                    "iwae.background", str(self.folder.resolve()), log=self.folder / "log.txt", environment=environment
                )
            except OSError as error:
                self.say("failed", f"no process could be started ({error})")
                raise
            self.say("starting", pid=process.pid, since=time.time())


def create(
    config: TrainConfig,
    device: str = "cpu",
    log: Path | None = None,
    *,
    folder: Path | None = None,
    keep: int = snapshots.COUNT,
) -> Run:
    """A new run, not yet started: in ``folder``, or in one of its own in ``runs_dir()``.

    It takes at most ``keep`` snapshots. With ``log``, TensorBoard finds the run in ``log/NAME``; raises MissingError
    where that package is not installed, and NotEnoughMemoryError where a step needs more memory than the device has.
    """
    step_memory.check(config, device, ever=True)
    if log:
        tensorboard.need()
    run = Run(folder or _new_folder(config))
    run.say("starting")
    settings = {"version": checkpoints.FORMAT_VERSION, "config": dataclasses.asdict(config), "device": device}
    settings |= {"tensorboard": str(log.absolute()) if log else None, "snapshots": keep}
    files.write(run.folder / "config.json", json.dumps(settings, indent=1))  # the last: it makes the folder a run
    return run


def _new_folder(config: TrainConfig) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{config.dataset}-{config.objective}-k{config.k}-s{config.seed}"
    folder, number = paths.make_writable(runs_dir(), paths.RUNS) / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = runs_dir() / f"{name}-{number}"


def start(config: TrainConfig, device: str = "cpu", log: Path | None = None) -> Run:
    """``create`` it and train in a process of its own, when it is its turn; returns at once."""
    turns.limit()  # a wrong one is said here, not in the log
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
