"""A run's records for other programs, callbacks of ``Training.run``: TensorBoard, Weights & Biases, MLflow.

    training.run(callbacks=[TensorBoard(Path("logs"), "my run")])

All write to the disk only, never to a network. Each step is in a log once, also of a run that was killed and resumed.
TensorBoard's and W&B's logs are then rewritten from the records that the run has kept; MLflow's run, which cannot be
rewritten, gets what it lacks. (W&B cannot continue an offline run: of two with one id, ``wandb sync`` keeps the last,
https://github.com/wandb/wandb/issues/4624.)
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from filelock import FileLock

from iwae.system import optional
from iwae.training.loop import Callback, Record, Training

FLUSH_SECONDS = 5.0  # between writes to the disk
EVENTS = "events.out.tfevents.*"  # how TensorBoard names its files
DATABASE, BATCH = "mlflow.db", 1000  # of MLflow; the metrics that it takes at once
BY_EPOCH = "by epoch/"  # of tags whose steps are epochs
PROJECT, TAG = "iwae", "iwae.id"  # of runs in W&B and MLflow; of a run in MLflow

Kind = Literal["tensorboard", "wandb", "mlflow"]


class LogError(RuntimeError):
    """A log cannot be written; the message names the program and the folder."""


class Logger(Callback):
    """The log of one run for one program."""

    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # that it needs
    view: ClassVar[str]  # the command that shows the logs in {folder}
    extra: ClassVar[str] = "loggers"  # of pyproject.toml, that has the packages

    def __init__(self, folder: Path, name: str, records: Sequence[Record] | None = None, started: float | None = None):
        """
        Args:
            folder: of the logs of all runs; a program finds them all there.
            name: of the run. A log of that name is replaced, or kept beside the new one by MLflow.
            records: where the run continues, those that it has kept (none, if it was killed early): the log of that
                name then holds them and the new ones.
            started: when the run began, in seconds since 1970, by default now. Times in the log are those of training.

        Raises:
            MissingError: where the program's package is not installed.
        """
        self.require()
        self.folder, self.name, self.records = folder.absolute(), name, records
        self.started = time.time() if started is None else started
        self.id = hashlib.sha256(str(self.folder / name).encode()).hexdigest()[:16]  # the same when the run is resumed

    @classmethod
    def available(cls) -> bool:
        """Whether its packages are installed."""
        return not optional.missing(*cls.packages)

    @classmethod
    def require(cls) -> None:
        """Raises MissingError unless its packages are installed."""
        optional.require(f"logging for {cls.title}", *cls.packages, extra=cls.extra)

    def on_start(self, training: Training) -> None:
        with self._described():
            self.open(training)
            for record in self.records or ():
                self.write(record, self.started + record.seconds)

    def on_record(self, record: Record, training: Training) -> None:
        with self._described():
            self.write(record, self.started + record.seconds)

    def on_end(self, training: Training) -> None:
        with self._described():
            self.close(training.finished)

    def open(self, training: Training) -> None:
        """Make the log, with the run's settings."""
        raise NotImplementedError

    def write(self, record: Record, when: float) -> None:
        """Write a record; ``when`` it was made, in seconds since 1970, had the run never been interrupted."""
        raise NotImplementedError

    def close(self, finished: bool) -> None:
        """Write what waits, and whether the run is finished."""
        raise NotImplementedError

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each library has its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise LogError(f"the log for {self.title} in {self.folder} cannot be written ({reason})") from error


class TensorBoard(Logger):
    """Event files in ``folder/name``."""

    title, packages, extra = "TensorBoard", ("tensorboard",), "extra"
    view = "tensorboard --logdir {folder}"

    def open(self, training: Training) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported here because it is slow
        from torch.utils.tensorboard.summary import hparams

        folder = self.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(EVENTS):
            old.unlink()
        # purge_step makes a TensorBoard that is already open discard what it has read
        self.writer = SummaryWriter(str(folder), flush_secs=math.ceil(FLUSH_SECONDS), purge_step=0)
        settings = _settings(training)
        self.writer.add_text("config", f"```json\n{json.dumps(settings, indent=1)}\n```", walltime=self.started)
        experiment, session, _ = hparams(settings, dict.fromkeys(("bound/training", "bound/validation"), 0))
        file_writer: Any = self.writer.file_writer
        for summary in (experiment, session):
            file_writer.add_summary(summary, walltime=self.started)

    def write(self, record: Record, when: float) -> None:
        for tag, value, step in scalars(record):
            self.writer.add_scalar(tag, value, step, walltime=when)

    def close(self, finished: bool) -> None:
        self.writer.close()


class WandB(Logger):
    """An offline run of Weights & Biases in ``folder/name/wandb``; ``wandb sync`` is what uploads it."""

    title, packages, view = "Weights & Biases", ("wandb",), "wandb sync {folder}/*/wandb/offline-run-*"

    def open(self, training: Training) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to their server; read when it is imported
        import wandb  # pyright: ignore[reportMissingImports]

        folder = self.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"wandb/offline-run-*-{self.id}"):
            shutil.rmtree(old)
        settings = wandb.Settings(
            reinit="create_new",  # beside other runs of this process
            silent=True,
            console="off",
            disable_git=True,  # and nothing else about this machine
            disable_code=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        about = {"project": PROJECT, "id": self.id, "name": self.name, "config": _settings(training)}
        self.run = wandb.init(mode="offline", dir=folder, settings=settings, **about)

    def write(self, record: Record, when: float) -> None:
        values = {tag: value for tag, value, _ in scalars(record) if not tag.startswith(BY_EPOCH)}
        self.run.log(values | {"_timestamp": when}, step=record.step)

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow(Logger):
    """A run in the SQLite database ``folder/mlflow.db``."""

    title, packages = "MLflow", ("mlflow", "sqlalchemy", "alembic")
    view = f"mlflow ui --backend-store-uri sqlite:///{{folder}}/{DATABASE}"

    def open(self, training: Training) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        from mlflow import MlflowClient, entities  # pyright: ignore[reportMissingImports]

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports each table
        self.entities = entities
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{DATABASE}.lock"):  # two runs would make the same tables
            self.client = MlflowClient(f"sqlite:///{self.folder / DATABASE}")
            experiment = self._experiment()
            self.run_id = self._found(experiment) or self._created(experiment, training)
        tags = self.client.get_run(self.run_id).data.metrics
        self.logged = {(tag, each.step) for tag in tags for each in self.client.get_metric_history(self.run_id, tag)}
        self.waiting, self.written = [], time.monotonic()

    def write(self, record: Record, when: float) -> None:
        for tag, value, step in scalars(record):
            if (tag, step) not in self.logged:
                self.waiting.append(self.entities.Metric(tag, value, round(when * 1000), step))
        if time.monotonic() - self.written > FLUSH_SECONDS:
            self._flush()

    def close(self, finished: bool) -> None:
        self._flush()
        self.client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(PROJECT)
        if found:
            return found.experiment_id
        return self.client.create_experiment(PROJECT, (self.folder / "mlflow-artifacts").as_uri())

    def _found(self, experiment: str) -> str | None:
        """The id of the run that continues, as running again."""
        if self.records is None:
            return None
        for run in self.client.search_runs([experiment], f"tags.`{TAG}` = '{self.id}'", max_results=1):
            self.client.update_run(run.info.run_id, "RUNNING")
            return run.info.run_id

    def _created(self, experiment: str, training: Training) -> str:
        run = self.client.create_run(experiment, round(self.started * 1000), {TAG: self.id}, self.name)
        params = [self.entities.Param(key, str(value)) for key, value in _settings(training).items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run.info.run_id

    def _flush(self) -> None:
        for start in range(0, len(self.waiting), BATCH):
            self.client.log_batch(self.run_id, self.waiting[start : start + BATCH])
        self.waiting, self.written = [], time.monotonic()


LOGGERS: dict[Kind, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


@dataclass(frozen=True)
class Logs:
    """For which programs a run is logged, and in which folder; raises ValueError for another program."""

    kinds: tuple[Kind, ...]
    folder: str

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(get_args(Kind)):
            raise ValueError(f"unknown logger {min(unknown)!r}; there are {', '.join(LOGGERS)}")

    def __str__(self) -> str:
        return f"{', '.join(self.kinds)} in {self.folder}"

    def require(self) -> None:
        """Raises MissingError unless the packages of all are installed."""
        for kind in self.kinds:
            LOGGERS[kind].require()

    def loggers(self, name: str, records: Sequence[Record], started: float) -> list[Logger]:
        """A logger for each, of the run of this name."""
        return [LOGGERS[kind](Path(self.folder), name, records, started) for kind in self.kinds]


def scalars(record: Record) -> Iterator[tuple[str, float, int]]:
    """(tag, value, step): bounds in nats per image, and at the end of an epoch, bounds and units by epochs as well."""
    measures = {"bound/training": record.bound, "bound/validation": record.valid_bound}
    units = {f"active units/layer {layer}": count for layer, count in enumerate(record.active_units or [], 1)}
    pace = {"images per second": record.images_per_second, "learning rate": record.learning_rate}
    pace["epochs"] = record.epochs
    for tag, value in (measures | units | pace).items():
        if value is not None:
            yield tag, value, record.step
    if record.epochs.is_integer():
        for tag, value in (measures | units).items():
            if value is not None:
                yield f"{BY_EPOCH}{tag}", value, int(record.epochs)


def _settings(training: Training) -> dict[str, Any]:
    """The run's settings, without those that are not set."""
    return {name: value for name, value in dataclasses.asdict(training.config).items() if value is not None}
