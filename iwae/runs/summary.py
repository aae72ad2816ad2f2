"""Comparison of runs: the state of each, the settings in which they differ, and their records as CSV."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from iwae import checkpoints
from iwae.checkpoints import CheckpointError
from iwae.model import ModelConfig
from iwae.runs import store
from iwae.runs.queue import RunStatus
from iwae.runs.store import Run
from iwae.system import untrusted
from iwae.system.untrusted import UntrustedError, Version
from iwae.training.config import TrainConfig
from iwae.training.loop import Record

POINTS = 500  # of a curve: as many as a screen can show
MISSING = "–"
CACHED_RUNS = 200  # runs whose records stay in memory

_cache: dict[Path, tuple[Version | None, tuple[Record, ...]]] = {}


@dataclass(frozen=True)
class RunSummary:
    """A run, read once."""

    run: Run
    config: TrainConfig
    status: RunStatus
    records: tuple[Record, ...]

    @property
    def name(self) -> str:
        return self.run.name

    @cached_property
    def title(self) -> str:
        """``IWAE k = 20``."""
        return f"{self.config.bound().title} k = {self.config.k}"

    @property
    def kind(self) -> str:
        """``vae`` for objectives that weight all draws equally, ``iwae`` for the others."""
        return self.config.kind

    @cached_property
    def validated(self) -> tuple[Record, ...]:
        """The records with a validation."""
        return tuple(record for record in self.records if record.valid_bound is not None)

    @property
    def progress(self) -> tuple[float, float | None]:
        """(share done in [0, 1], seconds left or None while unknown)."""
        if self.status.phase == "finished":
            return 1.0, 0.0
        if not self.records or not self.status.total_steps:
            return 0.0, None
        return store.progress_at(self.config, self.records[-1], self.status.total_steps)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Test metrics from the card of its checkpoint; empty before the run is evaluated."""
        try:
            checkpoints.check_place(self.run.checkpoint, self.run.folder)
            return _metrics(self.run.checkpoint, self.run.checkpoint.stat().st_mtime_ns)
        except (OSError, CheckpointError):
            return {}


def read(run: Run) -> RunSummary:
    """Read a run; raises RunError if its files cannot be read."""
    return RunSummary(run, run.config, run.status(), _records(run))


def _records(run: Run) -> tuple[Record, ...]:
    """The records of a run, cached until its file changes.

    Only the latest version of each run is kept, because its file changes many times a second while it trains.
    """
    try:
        version = untrusted.version(run.folder / "metrics.jsonl")
    except UntrustedError:
        version = None
    cached = _cache.get(run.folder)
    if version is None or cached is None or cached[0] != version:
        cached = _cache[run.folder] = version, tuple(run.records())  # raises RunError for damaged records
        for folder in list(_cache)[:-CACHED_RUNS]:
            _cache.pop(folder, None)
    return cached[1]


@lru_cache(maxsize=1000)
def _metrics(path: Path, written: int) -> dict[str, Any]:
    return checkpoints.read_card(path).metrics


def table_row(summary: RunSummary) -> dict[str, Any]:
    """A table row for a run; None where a value is unknown. Bounds in nats per image, of its own objective."""
    last = summary.records[-1] if summary.records else None
    validated = summary.validated[-1] if summary.validated else None
    metrics = summary.metrics
    return {
        "objective": summary.title,
        "data set": summary.config.dataset,
        "model": summary.config.model,
        "state": summary.status.phase,
        "done": summary.progress[0],
        "epochs": last and last.epochs,
        "minutes": last and last.seconds / 60,
        "bound": last and last.bound,
        "validation": validated and validated.valid_bound,
        "active units": units(validated),
        "images/s": last and last.images_per_second,
        "test NLL": metrics.get("nll"),
        "± s.e.": metrics.get("nll_se"),
        "run": summary.name,
    }


def units(record: Record | None) -> str | None:
    """Active units of every stochastic layer, from the pixels upwards: ``25`` or ``60 + 12``."""
    return None if record is None or record.active_units is None else " + ".join(map(str, record.active_units))


def differences(summaries: Sequence[RunSummary]) -> dict[str, list[str]]:
    """The settings in which runs differ, and the value of each run as text; ``device`` among them."""
    settings = [dataclasses.asdict(summary.config) | {"device": summary.run.device} for summary in summaries]
    return {
        name.replace("_", " "): [_text(one[name]) for one in settings]
        for name in (settings[0] if settings else ())
        if len({one[name] for one in settings}) > 1
    }


def _text(value: Any) -> str:
    return MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def thinned(records: Sequence[Record]) -> list[Record]:
    """At most POINTS records, evenly chosen, the last among them."""
    step = -(-len(records) // POINTS)
    return list(records[::-1][:: max(step, 1)])[::-1]


def metrics_csv(records: Sequence[Record]) -> str:
    """All records, a line each."""
    file = io.StringIO()
    names = [field.name for field in dataclasses.fields(Record)]
    lines = csv.DictWriter(file, names, lineterminator="\n")
    lines.writeheader()
    lines.writerows(dataclasses.asdict(record) | {"active_units": units(record)} for record in records)
    return file.getvalue()


def settings_json(run: Run) -> str:
    """The settings of the run as JSON, without paths on this machine."""
    return json.dumps({"config": dataclasses.asdict(run.config), "device": run.device}, indent=1)


@dataclass(frozen=True)
class Snapshot:
    """A saved model of the run, and when it was saved."""

    path: Path
    step: int
    epochs: float  # over the training data
    valid_bound: float | None  # nats per image, of the run's own objective


def snapshots(run: Run) -> tuple[list[Snapshot], list[str]]:
    """(snapshots of the run in order, with its checkpoint if that differs from the last one; a message for each file
    that cannot be used)."""
    found, refused = {}, []
    sizes = ModelConfig.parse(run.config.model)
    for path in (*run.snapshots.paths().values(), run.checkpoint):
        if not untrusted.is_file(path):  # not saved yet, or just deleted
            continue
        try:
            card = checkpoints.read_card(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        step, epochs = card.progress.get("steps"), card.progress.get("epochs")
        if card.model != sizes:
            refused.append(f"{path.name}: a model of sizes {card.model}, not {sizes} as the run's")
        elif not isinstance(step, int) or epochs is None:
            refused.append(f"{path.name}: its card does not say after how many steps and epochs it was saved")
        else:
            found[step] = Snapshot(path, step, epochs, card.progress.get("valid_bound"))
    return sorted(found.values(), key=lambda snapshot: snapshot.step), refused
