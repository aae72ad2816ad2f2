"""Training runs: each has a process and a folder, and outlives the page, tab or shell that started it.

A run's folder holds:

    config.json              the TrainConfig, the device, for which programs it is logged, how many snapshots to
                             take, and when the run was made
    start.safetensors        a copy of the checkpoint it starts from, if any
    metrics.jsonl            one Record a line
    state.safetensors        all that is needed to resume bit for bit
    checkpoint.safetensors   the model so far, its card in the header
    snapshots/               the model at earlier points of training (iwae/runs/snapshots.py)
    status.json              the status that the process last reported
    log.txt                  what the process printed
    stop                     exists while the process is asked to stop
    lock                     held by the run's process: a free lock and an unfinished run mean that it died

The process is in worker.py, its status and the queue in queue.py. Files of a run are read as untrusted input
(iwae/system/untrusted.py).
"""

import dataclasses
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from iwae import checkpoints
from iwae.runs import queue, snapshots
from iwae.runs.loggers import Kind, Logs
from iwae.runs.queue import RunError, RunFolder
from iwae.runs.snapshots import SnapshotFolder
from iwae.system import cores, files, launcher, paths, processes, untrusted
from iwae.system.paths import runs_dir
from iwae.system.untrusted import ForbiddenError, UntrustedError
from iwae.training import memory
from iwae.training.config import TrainConfig
from iwae.training.loop import Record, load_start

CONFIG_BYTES, METRICS_BYTES = 2**16, 2**26  # that a file may have; 3,280 epochs over MNIST log 23 MB


@dataclass(frozen=True)
class Run(RunFolder):
    """A run's folder, read again at every call, except for its settings, which never change."""

    @property
    def checkpoint(self) -> Path:
        """The model so far; exists from the first save on."""
        return self.folder / f"checkpoint{checkpoints.SUFFIX}"

    @property
    def config(self) -> TrainConfig:
        """How it is trained; raises RunError when config.json cannot be read."""
        return self._settings[1]

    @property
    def device(self) -> str:
        """Where it is trained; raises RunError when config.json cannot be read."""
        return self._settings[0].device

    @property
    def logs(self) -> Logs | None:
        """The programs that it is logged for, if any; raises RunError when config.json cannot be read."""
        settings = self._settings[0]
        return Logs(("tensorboard",), settings.tensorboard) if settings.tensorboard else settings.logs

    @property
    def created(self) -> float:
        """When it was created, in seconds since 1970; raises RunError when config.json cannot be read."""
        created = self._settings[0].created
        return (self.folder / "config.json").stat().st_mtime if created is None else created

    @property
    def max_snapshots(self) -> int:
        """How many snapshots it takes, at most; raises RunError when config.json cannot be read."""
        return self._settings[0].snapshots

    @property
    def start(self) -> Path | None:
        """Its copy of the checkpoint whose weights it starts from; None if there is none."""
        path = self.folder / f"start{checkpoints.SUFFIX}"
        return path if untrusted.is_file(path) else None

    @property
    def snapshots(self) -> SnapshotFolder:
        """Its snapshots so far."""
        return SnapshotFolder(self.folder / "snapshots")

    @property
    def _settings(self) -> "tuple[_Settings, TrainConfig]":
        # not a functools.cached_property: before Python 3.12 the threads of all pages would wait for one lock of it
        if "_read" not in self.__dict__:
            if links := [path.name for path in self.folder.glob("*") if path.is_symlink()]:
                raise RunError(f"run {self.name}: {files.printable(links[0])} is a link, which is not followed")
            with self._damage("config.json"):
                path = self.folder / "config.json"
                self.__dict__["_read"] = _read_settings(path, untrusted.version(path))
        return self.__dict__["_read"]

    @contextmanager
    def _damage(self, file: str) -> Iterator[None]:
        """Turn errors of reading a file of the run into a RunError that names both."""
        try:
            yield
        except FileNotFoundError:
            raise RunError(f"run {self.name}: its {file} cannot be read (there is no such file)") from None
        except UntrustedError as error:
            raise RunError(f"run {self.name}: its {file} cannot be read ({error})") from None

    def records(self) -> list[Record]:
        """All records so far, without a line that is still being written. Raises RunError for an invalid line."""
        with self._damage("metrics.jsonl"):
            try:
                lines = untrusted.read(self.folder / "metrics.jsonl", METRICS_BYTES).split(b"\n")
            except FileNotFoundError:
                return []
            return [_record(line) for line in lines[:-1]]  # the last is empty or unfinished

    def progress(self) -> tuple[float, float | None]:
        """(share done in [0, 1], seconds left or None while unknown)."""
        status, records = self.status(), self.records()
        if status.phase == "finished":
            return 1.0, 0.0
        if not records or not status.total_steps:
            return 0.0, None
        return progress_at(self.config, records[-1], status.total_steps)

    def prepare(self) -> None:
        """Prepare the run to be resumed; raises RunError if it is running or finished."""
        status = self.status()
        if status.alive:
            raise RunError(f"run {self.name} is already running")
        if status.phase == "finished":
            raise RunError(f"run {self.name} is finished")
        try:
            (self.folder / "stop").unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"run {self.name} cannot be resumed here ({error.strerror or error})") from None

    def resume(self) -> None:
        """Resume from the last saved state in a new process, through the queue; returns at once."""
        paths.check_changeable()
        queue.max_running()  # report an invalid IWAE_MAX_RUNS here, not in the log
        self.prepare()
        self._spawn()

    def delete(self) -> None:
        """Delete the run with all its files (not its logs for other programs); raises RunError while it is running."""
        paths.check_changeable()
        if self.status().alive:
            raise RunError(f"run {self.name} is running: stop it first")
        gone = self.folder.with_name(f".deleted-{self.name}-{uuid.uuid4().hex}")  # so that its name is free at once
        with self.claim():
            self.folder.rename(gone)  # atomic for every reader
            shutil.rmtree(gone)

    def _spawn(self) -> None:
        environment = {
            "OMP_NUM_THREADS": os.environ.get(
                "OMP_NUM_THREADS", str(max(1, cores.count() // 2))
            ),  # leaves some for the page
            "IWAE_RUNS_DIR": str(self.folder.parent.resolve()),
        }
        with self.claim():  # the process waits for this lock
            try:
                process = launcher.start(
                    "iwae.runs.process",
                    str(self.folder.resolve()),
                    log=self.folder / "log.txt",
                    environment=environment,
                )
            except OSError as error:
                self.set_status("failed", f"no process could be started ({error})")
                raise
            started = processes.start_time(process.pid)
            self.set_status("starting", pid=process.pid, started=started, since=time.time())

        def record_end() -> None:
            self.record_exit(processes.describe_exit(process.wait()))

        threading.Thread(target=record_end, daemon=True).start()


@dataclass(frozen=True)
class _Settings:
    """The content of config.json. Older runs lack the optional fields."""

    config: dict[str, Any]
    device: str
    version: int = 1  # of the format
    logs: Logs | None = None
    tensorboard: str | None = None  # the folder of the logs, until there were others
    snapshots: int = 0
    created: float | None = None  # seconds since 1970


@lru_cache(maxsize=4096)
def _read_settings(path: Path, version: untrusted.Version | None) -> tuple[_Settings, TrainConfig]:
    settings = untrusted.decode(untrusted.read(path, CONFIG_BYTES), _Settings)
    try:
        return settings, TrainConfig.from_dict(checkpoints.upgraded(settings.config, settings.version))
    except (ValueError, TypeError) as error:
        raise UntrustedError(files.printable(error, 300)) from None


def _record(line: bytes) -> Record:
    record = untrusted.decode(line, Record, checkpoints.OLD_NAMES)
    if record.step < 1:
        raise UntrustedError(f"step must be at least 1, not {record.step}")
    for name in ("epochs", "seconds", "images_per_second"):
        if getattr(record, name) < 0:
            raise UntrustedError(f"{name} must not be below 0, not {getattr(record, name)}")
    return record


def create(
    config: TrainConfig,
    device: str = "cpu",
    logs: Logs | None = None,
    *,
    folder: Path | None = None,
    max_snapshots: int = snapshots.MAX_COUNT,
) -> Run:
    """Create a run without starting it, in ``folder`` or in a new folder in ``runs_dir()``.

    It takes at most ``max_snapshots`` snapshots. Raises MissingError where the packages that ``logs`` needs are not
    installed, and NotEnoughMemoryError where a step needs more memory than the device has.
    """
    paths.check_changeable()
    memory.check(config, device, ever=True)
    if logs:
        logs.require()
    if config.start:
        load_start(config, config.model_config)  # raises before the run exists
    run = Run(folder or _new_folder(config))
    run.folder.mkdir(parents=True, exist_ok=True)
    run.set_status("starting")
    if config.start:  # a run depends on no file outside its folder
        files.write(run.folder / f"start{checkpoints.SUFFIX}", Path(config.start).read_bytes())
    settings = {"version": checkpoints.FORMAT_VERSION, "created": time.time()}
    settings |= {"config": dataclasses.asdict(config), "device": device}
    settings |= {"logs": dataclasses.asdict(logs) if logs else None, "snapshots": max_snapshots}
    files.write(
        run.folder / "config.json", json.dumps(settings, indent=1)
    )  # last: a folder with a config.json is a run
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


def start(config: TrainConfig, device: str = "cpu", logs: Logs | None = None) -> Run:
    """``create`` a run and train it in a new process, through the queue; returns at once."""
    queue.max_running()  # report an invalid IWAE_MAX_RUNS here, not in the log
    run = create(config, device, logs)
    run._spawn()
    return run


def logs_for(kinds: Sequence[Kind], folder: Path | None = None) -> Logs | None:
    """Logs for these programs, each named once, in ``folder`` or ``logs_dir()``; None for no program."""
    return Logs(tuple(dict.fromkeys(kinds)), str((folder or logs_dir()).absolute())) if kinds else None


def logs_dir() -> Path:
    """Where logs for other programs go whose folder is not named."""
    return runs_dir() / "logs"  # no run: it holds no config.json


def get(name: str) -> Run:
    """The run of this name; raises RunError that lists existing names."""
    names = [run.name for run in list_runs()]
    if name not in names:
        more = ", …" if len(names) > 5 else ""
        raise RunError(f"there is no run {name!r} in {runs_dir()}; there are: {', '.join(names[:5]) or 'none'}{more}")
    return Run(runs_dir() / name)


def list_runs() -> list[Run]:
    """All runs that this user may read, newest first."""
    return find_runs()[0]


def training_on(dataset: str, runs: Iterable[Run]) -> Run | None:
    """The first of these runs that is of this data set; None where none is."""
    for run in runs:
        with suppress(RunError):  # damaged
            if run.config.dataset == dataset:
                return run
    return None


def find_runs() -> tuple[list[Run], dict[str, str]]:
    """(runs, newest first; for each folder that this user may not read, a message by its name).

    Folders that hold no run, and links that lead elsewhere, are skipped. The time of creation is that of config.json,
    because the name has only local time.
    """
    found, refused = [], {}
    try:
        folders = [entry for entry in os.scandir(runs_dir()) if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return [], {}
    except OSError as error:
        return [], {runs_dir().name: f"{runs_dir()}: the folder of the runs cannot be read ({error.strerror})"}
    for folder in folders:
        run = Run(Path(folder.path))
        path = run.folder / "config.json"
        if folder.is_symlink() and not files.is_inside(run.folder, runs_dir()):
            continue
        try:
            if version := untrusted.version(path):
                found.append((_created(path, version), run.name, run))
        except ForbiddenError as error:
            refused[run.name] = f"run {run.name} is skipped: it cannot be read ({error})"
    return [run for *_, run in sorted(found, reverse=True)], refused


def _created(path: Path, version: untrusted.Version) -> float:
    """When the run of this config.json was created; raises ForbiddenError where this user may not read it."""
    try:
        created = _read_settings(path, version)[0].created
    except ForbiddenError:
        raise
    except (FileNotFoundError, UntrustedError):  # just deleted, or damaged, which is reported when the run is read
        created = None
    return version[1] / 1e9 if created is None else created


def progress_at(config: TrainConfig, record: Record, total_steps: int) -> tuple[float, float]:
    """(share done in (0, 1], seconds left) at a record: by steps or by minutes, whichever ends first."""
    done = record.step / total_steps
    if config.minutes is not None:
        done = max(done, record.seconds / (60 * config.minutes))
    done = min(done, 1.0)
    return done, record.seconds * (1 - done) / done
