"""A sweep: the cells of a grid as runs in one folder, trained by a backend, with the results in one table.

    NAME/
      CELL/                              a run's folder (iwae/runs/store.py); its card holds the final test NLL
      table.md, table.csv, table.json    all cells, rewritten whenever one ends
      lock                               held while a process drives the sweep

Progress is read from the runs alone: a finished cell is never run again, and any other resumes from its last state,
under either backend (iwae/sweeps/process_pool.py, iwae/sweeps/ray_pool.py).
"""

import csv
import io
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from tqdm import tqdm

from iwae import checkpoints
from iwae.data import datasets
from iwae.evaluation.stats import plus_minus
from iwae.runs import store, worker
from iwae.runs.store import Run, RunError
from iwae.sweeps.grid import GridCell
from iwae.system import files
from iwae.training.config import TrainConfig

POLL_SECONDS = 0.5  # between two polls of the backend
REPORT_SECONDS = 30.0  # between two progress lines on running cells


class SweepError(ValueError):
    """A sweep that cannot be run; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """The final test of every cell."""

    samples: int = 5000  # draws from q(h|x) for each image
    images: int | None = None  # number of test images, chosen by a fixed seed; None for all

    def image_count(self, dataset: str) -> int:
        there = datasets.source(dataset).sizes[2]
        return there if self.images is None else min(self.images, there)

    def is_done(self, run: Run) -> bool:
        """Whether a run's card has it."""
        found = checkpoints.read_card(run.checkpoint).metrics
        wanted = {"samples": self.samples, "images": self.image_count(run.config.dataset), "seed": 0}
        return {name: found.get(name) for name in wanted} == wanted


@dataclass(frozen=True)
class TrainingJob:
    """Everything a process needs to train and test one cell."""

    folder: Path
    config: TrainConfig
    device: str
    measurement: Measurement

    def run(self, save_seconds: float | None = None) -> str:
        """Train and test in this process, from the last saved state, until the end or until asked to stop.

        Returns the reason of a failure, or an empty string.
        """
        run = Run(self.folder)
        try:
            if not (self.folder / "config.json").exists():
                run = store.create(self.config, self.device, folder=self.folder, max_snapshots=0)
            if run.config != self.config:
                raise RunError(f"{self.folder} holds a run with other settings")
            if run.status().phase != "finished":
                worker.work(run, save_seconds=save_seconds)
            if run.status().phase == "finished" and not self.measurement.is_done(run):
                worker.measure(run, self.measurement.image_count(self.config.dataset), self.measurement.samples)
        except Exception as error:  # the other cells continue
            return str(error) or type(error).__name__
        return ""

    def ask_to_stop(self) -> None:
        """From any process: ``work`` saves and returns soon."""
        files.write(self.folder / "stop", "")


class Backend(Protocol):
    """Runs jobs, each in a process with one torch thread for every core it may use."""

    def has_capacity(self) -> bool:
        """Whether it accepts another job now."""
        ...

    def start(self, name: str, job: TrainingJob) -> None:
        """Take a job."""

    def wait(self, seconds: float) -> dict[str, str]:
        """Jobs that have ended, by name, with the result of ``TrainingJob.run``; waits at most ``seconds`` for one."""
        ...

    def stop(self) -> None:
        """Ask all jobs to save and stop; ``wait`` still returns each of them."""


@dataclass(frozen=True)
class CellResult:
    """A row of the table; None where a value is unknown."""

    cell: str
    dataset: str
    objective: str
    k: int
    model: str
    seed: int
    state: str  # not run, half-finished, failed or finished
    reason: str  # of a failure
    epochs: float | None  # over the training data, so far
    bound: float | None  # of the cell's objective, mean over the training images since the record before the last
    valid_bound: float | None  # the same, on validation images, of the model that is kept
    nll: float | None  # on the test images, of a finished cell
    nll_se: float | None
    samples: int | None
    images: int | None
    active_units: str | None  # of each stochastic layer
    seconds: float | None  # of training


@dataclass(frozen=True)
class Sweep:
    """The cells of a grid and the folder of their runs."""

    folder: Path
    cells: Sequence[GridCell]
    measurement: Measurement = Measurement()

    def run(self, backend: Backend, device: str = "cpu", report: Callable[[str], None] = print) -> list[CellResult]:
        """Train and test all cells; returns the table, which is also written to the folder.

        Ctrl-C, or SIGTERM, saves and stops. Raises SweepError if another process runs the sweep.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.folder / "lock", timeout=0).acquire()
        except Timeout:
            raise SweepError(f"{self.folder} is already being run by another process") from None
        with lock, worker.Signals() as signals:
            reasons = self._drive(backend, device, report, lambda: signals.caught)
            return self._write(reasons)

    def rows(self, reasons: dict[str, str] | None = None) -> list[CellResult]:
        """The results of all cells; ``reasons``: messages of those that have just failed, by name."""
        return [self.row(cell, (reasons or {}).get(cell.name, "")) for cell in self.cells]

    def row(self, cell: GridCell, reason: str = "") -> CellResult:
        """The result of one cell."""
        run, c = Run(self.folder / cell.name), cell.config
        named = dict(cell=cell.name, dataset=c.dataset, objective=c.objective, k=c.k, model=c.model, seed=c.seed)
        found: dict[str, Any] = dict.fromkeys(field.name for field in fields(CellResult)) | named

        def result(state: str, reason: str) -> CellResult:
            found.update(state=state, reason=reason)
            return CellResult(**found)

        if not (run.folder / "config.json").exists():
            return result("failed" if reason else "not run", reason)
        try:
            status, records, card = run.status(), run.records(), None
            if run.checkpoint.exists():
                card = checkpoints.read_card(run.checkpoint)
            done = status.phase == "finished" and self.measurement.is_done(run)
        except ValueError as error:
            return result("failed", str(error))
        if status.phase == "failed":
            reason = reason or status.message
        if records:
            found |= {name: getattr(records[-1], name) for name in ("epochs", "bound", "seconds")}
        if card:
            found["valid_bound"] = card.progress.get("valid_bound")
        if card and done:
            found |= {name: card.metrics[name] for name in ("nll", "nll_se", "samples", "images")}
            found["active_units"] = "+".join(map(str, card.metrics["active_units"] or ()))
        state = "finished" if done else "failed" if reason else "half-finished"
        return result(state, "" if done else reason)

    def seconds_left(self) -> dict[str, float | None]:
        """Training time that every cell still needs, by name: from its own records, or those of a cell that costs as
        much per epoch; None where there is none."""
        per_epoch, left = {}, {}
        rows = self.rows()
        for cell, row in zip(self.cells, rows, strict=True):
            if row.epochs and row.seconds is not None:
                per_epoch.setdefault(_cost_class(cell.config), row.seconds / row.epochs)
        for cell, row in zip(self.cells, rows, strict=True):
            cost = per_epoch.get(_cost_class(cell.config))
            total = None if cost is None else cost * cell.config.epochs
            if total is not None and cell.config.minutes is not None:
                total = min(total, 60 * cell.config.minutes)
            done = total if row.state == "finished" else row.seconds or 0.0
            left[cell.name] = 0.0 if row.state == "finished" else total and max(total - done, 0.0)
        return left

    def _drive(
        self, backend: Backend, device: str, report: Callable[[str], None], stop: Callable[[], bool]
    ) -> dict[str, str]:
        """Submit all cells to the backend; returns the reasons of failures by cell."""
        rows = dict(zip(self.cells, self.rows(), strict=True))
        waiting = deque(cell for cell, row in rows.items() if row.state != "finished")
        report(f"{len(rows)} cells, {len(rows) - len(waiting)} of them finished, in {self.folder}")
        working: dict[str, GridCell] = {}
        reasons: dict[str, str] = {}
        stopping, reported = False, time.monotonic()
        while working or (waiting and not stopping):
            if stop() and not stopping:
                stopping = True
                report(f"{len(working)} cells save and stop")
                backend.stop()
            while waiting and not stopping and backend.has_capacity():
                cell = waiting.popleft()
                working[cell.name] = cell
                (self.folder / cell.name / "stop").unlink(missing_ok=True)
                backend.start(cell.name, TrainingJob(self.folder / cell.name, cell.config, device, self.measurement))
            for name, reason in backend.wait(POLL_SECONDS).items():
                reasons |= {name: reason} if reason else {}
                report(_outcome(self.row(working.pop(name), reason)))
                self._write(reasons)
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                for name in working:
                    report(self._progress(name))
        return reasons

    def _progress(self, name: str) -> str:
        run = Run(self.folder / name)
        try:
            (done, left), records = run.progress(), run.records()
        except RunError:
            return f"{name}: waiting"
        if not records:
            return f"{name}: waiting"
        left = "" if left is None else f", {tqdm.format_interval(left)} left"
        return f"{name}: {done:.0%}{left}, bound {records[-1].bound:.2f} nats"

    def _write(self, reasons: dict[str, str]) -> list[CellResult]:
        rows = self.rows(reasons)
        files.write(self.folder / "table.md", markdown(rows))
        files.write(self.folder / "table.csv", _csv(rows))
        configs = {cell.name: asdict(cell.config) for cell in self.cells}
        content = [asdict(row) | {"config": configs[row.cell]} for row in rows]
        files.write(self.folder / "table.json", json.dumps(content, indent=1) + "\n")
        return rows


def markdown(rows: Sequence[CellResult]) -> str:
    """The table as Markdown."""
    lines = [
        "| cell | epochs | bound | validation bound | test NLL | active units | seconds | state |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        nll = "" if row.nll is None else plus_minus(row.nll, row.nll_se)
        numbers = [_number(row.epochs, ".1f"), _number(row.bound, ".2f"), _number(row.valid_bound, ".2f"), nll]
        numbers += [row.active_units or "", _number(row.seconds, ".0f")]
        state = f"{row.state}: {row.reason}" if row.reason else row.state
        lines.append(f"| {' | '.join([row.cell, *numbers, state.replace('|', '∣')])} |")
    measured = sorted({(row.samples, row.images) for row in rows if row.samples})
    how = "; ".join(f"{images:,} test images, {samples:,} draws each" for samples, images in measured)
    lines += ["", f"Bounds, each of the cell's own objective, and NLL in nats per image{': ' if how else ''}{how}."]
    return "\n".join(lines) + "\n"


def _csv(rows: Sequence[CellResult]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(CellResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _outcome(row: CellResult) -> str:
    if row.state == "finished" and row.nll is not None:
        nll = plus_minus(row.nll, row.nll_se)
        return f"{row.cell}: finished, test NLL {nll} nats, {row.seconds:.0f} s of training"
    return f"{row.cell}: {row.state}{': ' if row.reason else ''}{row.reason}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cost_class(config: TrainConfig) -> tuple:
    """What decides how long an epoch takes, all but the device."""
    draws = (config.k, config.warm_k, config.warm_share if config.warm_k else 0, config.gradient, config.resample)
    return config.dataset, config.model, config.batch_size, config.precision, *draws
