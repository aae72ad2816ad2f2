"""What is left of the published grid: its cells without a model, the command that trains each, and what it costs."""

from collections.abc import Iterable
from dataclasses import replace

from iwae.gradients import GRADIENTS
from iwae.results import published
from iwae.results.published import Cell
from iwae.results.rows import Row
from iwae.runs import estimate
from iwae.training import commands
from iwae.training.config import TrainConfig


def not_run(rows: Iterable[Row], dataset: str | None = None) -> list[Row]:
    """The cells of the published grid without a model, each with the command that trains it on the paper's schedule."""
    done = {row.cell.grid for row in rows}
    wanted = [cell for cell in published.cells() if cell not in done and dataset in (None, cell.dataset)]
    return [Row("not run", cell.place, cell, _command(cell)) for cell in wanted]


def with_costs(missing: Iterable[Row]) -> list[Row]:
    """The rows of ``not_run`` with the minutes that their trainings would take on this machine's CPU, from earlier runs
    or measured for a moment, which takes some seconds in all."""
    found = []
    for row in missing:
        speeds = [(config, estimate.speed(config)) for config, _ in _trainings(row.cell)]
        seconds = [estimate.seconds(config, speed) for config, speed in speeds if speed]
        found.append(replace(row, minutes=sum(seconds) / 60 if len(seconds) == len(speeds) else None))
    return found


def _command(cell: Cell) -> str:
    return " && ".join(commands.train(config, out) for config, out in _trainings(cell))


def _trainings(cell: Cell) -> list[tuple[TrainConfig, str]]:
    """What trains a cell of the published grid as its authors did, and each one's file: first the model that it starts
    from."""
    if not cell.start:
        return [(_paper(cell), "")]
    first = next(other for other in published.cells() if other.title == cell.start and _same_place(other, cell))
    out = f"models/{'-'.join((cell.dataset, cell.model, first.objective, f'k{first.k}'))}.safetensors"
    return [(_paper(first), out), (_paper(cell, start=out), "")]


def _paper(cell: Cell, start: str | None = None) -> TrainConfig:
    settings = {"dataset": cell.dataset, "model": cell.model, "objective": cell.objective, "k": cell.k}
    settings |= {"gradient": "exact", "schedule": "paper", "start": start, **dict(cell.parameters)}
    if cell.objective in GRADIENTS:
        settings |= {"gradient": cell.objective, "objective": GRADIENTS[cell.objective].objective}
    return TrainConfig(**settings)


def _same_place(a: Cell, b: Cell) -> bool:
    return (a.dataset, a.model, a.start) == (b.dataset, b.model, "")
