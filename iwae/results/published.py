"""Published results as data: ``published.csv``, one line for each value of each source, and what it cites.

Columns: the cell (data set, architecture, objective with its parameters, k, and the model that it started from where
the objective was changed), then its measures on the test images: NLL, reconstruction loss and D_KL(q(h|x) ‖ p(h|x)) in
nats per image, active units and PCA active units of each layer from the pixels upwards; source and note. An empty
field is a value that its source does not give. All NLLs are −L_5000, and no source gives the error that another seed
or another binarization of the test images would show.

All OMNIGLOT results stand under ``omniglot-burda``, whose 24,345 and 8,070 images they are of. The data set
``omniglot`` holds the same drawings, but other scans of them, shrunk in another way and split anew: its NLLs cannot
be compared.
"""

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from iwae.bounds import OBJECTIVES, titled
from iwae.catalog import LAYERS
from iwae.gradients import GRADIENTS

FILE = Path(__file__).with_suffix(".csv")
MEASURES = ("nll", "reconstruction", "kl_posterior", "active", "pca_active")


@dataclass(frozen=True)
class Source:
    """Where values were published."""

    citation: str
    address: str = ""

    @property
    def text(self) -> str:
        return f"{self.citation}{', ' if self.address else ''}{self.address}"


SOURCES = {
    "R": Source("Arnal, Lee and Pezzotti: poster and report on importance weighted autoencoders, 2021"),
    "B": Source(
        "Burda, Grosse and Salakhutdinov: Importance Weighted Autoencoders, ICLR 2016",
        "https://arxiv.org/abs/1509.00519",
    ),
    "P": Source(
        "Chadebec, Vincent and Allassonnière: Pythae, NeurIPS 2022; the reproductions on the library's own page",
        "https://github.com/clementchadebec/benchmark_VAE",
    ),
    "X": Source(
        "Ding: Importance_Weighted_Autoencoders, README of the repository",
        "https://github.com/xqding/Importance_Weighted_Autoencoders",
    ),
    "N": Source("nbip: IWAE in TensorFlow 2, README of the repository", "https://github.com/nbip/IWAE"),
}


@dataclass(frozen=True)
class Cell:
    """What was trained: one cell of the published grid, or of ours."""

    dataset: str
    model: str  # 1layer or 2layer; ours may be other sizes, of which nothing is published
    objective: str  # of bounds.OBJECTIVES, or a gradient with parameters of its own (PIWAE)
    k: int
    parameters: tuple[tuple[str, float], ...] = ()  # of the objective
    start: str = ""  # title of the objective that it went on from

    @property
    def title(self) -> str:
        """``VAE k = 1``, ``Power mean p = 2, k = 50``."""
        values = dict(self.parameters)
        row = (OBJECTIVES | GRADIENTS)[self.objective]
        return f"{titled(row.title, row.parameters, values)}{',' if values else ''} k = {self.k}"

    @property
    def place(self) -> str:
        """``mnist, 1 layer: VAE k = 50``, ``mnist, 1 layer: VAE k = 50 after IWAE k = 50``."""
        layers = LAYERS.get(self.model, self.model)
        return f"{self.dataset}, {layers}: {self.title}{f' after {self.start}' if self.start else ''}"

    @property
    def grid(self) -> "Cell":
        """The cell of the published grid that it belongs to: with one draw IWAE is VAE."""
        objective = "vae" if (self.objective, self.k) == ("iwae", 1) else self.objective
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Result:
    """One source's values for a cell; None where it gives none."""

    cell: Cell
    source: str  # a key of SOURCES
    nll: float
    reconstruction: float | None = None
    kl_posterior: float | None = None
    active: tuple[int, ...] | None = None
    pca_active: tuple[int, ...] | None = None
    note: str = ""


@cache
def load() -> tuple[Result, ...]:
    """Everything in published.csv, in its order."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_result(line) for line in csv.DictReader(file))


@cache
def _by_cell() -> dict[Cell, tuple[Result, ...]]:
    """The results of each cell of the grid: pages look some hundreds up at a time."""
    found: dict[Cell, tuple[Result, ...]] = {}
    for result in load():
        found[result.cell.grid] = (*found.get(result.cell.grid, ()), result)
    return found


def lookup(cell: Cell) -> tuple[Result, ...]:
    """What was published for a cell, by all sources.

    A model that went on under another objective is a cell of its own: a few epochs after a VAE are not set beside a
    training from scratch.
    """
    return _by_cell().get(cell.grid, ())


def best(cell: Cell, measure: str = "nll") -> Result | None:
    """The result with the lowest value of a measure in nats, or with the most units; None where none has it."""
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r}; there are {', '.join(MEASURES)}")
    found = [result for result in lookup(cell) if getattr(result, measure) is not None]
    return min(found, key=lambda result: _rank(getattr(result, measure)), default=None)


def cells() -> tuple[Cell, ...]:
    """The cells of the published grid, each once."""
    return tuple(_by_cell())


def _rank(value: float | tuple[int, ...]) -> float:
    """The lower the better: nats as they are, and the more active units the better."""
    return -sum(value) if isinstance(value, tuple) else value


def _result(line: dict[str, str]) -> Result:
    parameters = tuple((name, _number(value)) for name, value in (p.split("=") for p in line["parameters"].split()))
    cell = Cell(line["dataset"], line["model"], line["objective"], int(line["k"]), parameters, line["start"])
    nats: dict[str, Any] = {
        name: float(line[name]) if line[name] else None for name in ("nll", "reconstruction", "kl_posterior")
    }
    units: dict[str, Any] = {
        name: tuple(int(layer) for layer in line[name].split("+")) if line[name] else None
        for name in ("active", "pca_active")
    }
    return Result(cell, line["source"], **nats, **units, note=line["note"])


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
