"""What is left of the published grid: its cells without a model, and the command that trains each."""

from collections.abc import Iterable

from iwae.gradients import GRADIENTS
from iwae.results import published
from iwae.results.published import Cell
from iwae.results.rows import Row
from iwae.training import commands
from iwae.training.config import TrainConfig


def not_run(rows: Iterable[Row], dataset: str | None = None) -> list[Row]:
    """The cells of the published grid without a model, each with the command that trains it on the paper's schedule."""
    done = {row.cell.grid for row in rows}
    wanted = [cell for cell in published.cells() if cell not in done and dataset in (None, cell.dataset)]
    return [Row("not run", cell.place, cell, _command(cell)) for cell in wanted]


def _command(cell: Cell) -> str:
    """Trains a cell of the published grid as its authors did; first the model that it starts from."""
    if not cell.start:
        return commands.train(_paper(cell))
    first = next(other for other in published.cells() if other.title == cell.start and _same_place(other, cell))
    out = f"models/{'-'.join((cell.dataset, cell.model, first.objective, f'k{first.k}'))}.safetensors"
    return f"{commands.train(_paper(first), out)} && {commands.train(_paper(cell, start=out))}"


def _paper(cell: Cell, start: str | None = None) -> TrainConfig:
    settings = {"dataset": cell.dataset, "model": cell.model, "objective": cell.objective, "k": cell.k}
    settings |= {"gradient": "exact", "schedule": "paper", "start": start, **dict(cell.parameters)}
    if cell.objective in GRADIENTS:
        settings |= {"gradient": cell.objective, "objective": GRADIENTS[cell.objective].objective}
    return TrainConfig(**settings)


def _same_place(a: Cell, b: Cell) -> bool:
    return (a.dataset, a.model, a.start) == (b.dataset, b.model, "")
