"""What the cards alone cannot tell, kept in three files so that it can be shown without data and without training.

``paired.csv``     pairs of shipped models on the same test images: each measure of a and of b, b − a, and the standard
                   error of that over images; and both NLLs on the cards, by which a line is left out where a model of
                   that name was trained anew. Written by ``python -m iwae findings --measure``
``seeds.csv``      each measure over the seeds of docs/seeds.toml, by ``python -m iwae findings --seeds FOLDER``
``dimension.csv``  units of models of images whose latent dimension is known, by ``python -m benchmarks.dimension``

Measures, in nats per image unless stated otherwise: those of ``comparison.MEASURES``; ``gap``, log p̂(x) minus the bound
that was trained; of q(h₁|x) ``std``, its mean standard deviation over all units, ``std_active``, the same over active
ones, ``trace``, tr Σ(x), and ``log_det``, log det C of all posteriors together; ``active`` and ``pca_active``, units.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

PAIRED, SEEDS, DIMENSIONS = (Path(__file__).with_name(f"{name}.csv") for name in ("paired", "seeds", "dimension"))
SAME = 0.01  # nats within which a model's NLL is that of the one that was measured; half precision moves it by 0.001
T = TypeVar("T")


@dataclass(frozen=True)
class PairedFigure:
    """A line of ``paired.csv``."""

    measure: str
    a: str  # names of the models
    b: str
    value_a: float
    value_b: float
    difference: float  # b − a
    se: float  # of the difference, over images
    images: int
    samples: int  # draws from q(h|x) for each image; 0 where none are needed
    seed: int  # of the choice of images, and of the draws
    nll_a: float  # on the cards
    nll_b: float

    def over_images(self, count: int) -> float:
        """The standard error that the difference has on so many images."""
        return self.se * math.sqrt(self.images / count)


@dataclass(frozen=True)
class SeedFigure:
    """A line of ``seeds.csv``: a measure of one cell of docs/seeds.toml."""

    model: str  # as in Cell
    objective: str
    parameters: str  # of the objective: ``p=2``, or empty
    k: int
    measure: str
    mean: float  # over the seeds
    sd: float  # standard deviation over the seeds
    seeds: int
    images: int
    samples: int

    @property
    def cell(self) -> tuple[str, str, str, int]:
        """Its model, objective, parameters and k."""
        return self.model, self.objective, self.parameters, self.k


@dataclass(frozen=True)
class KnownDimension:
    """A line of ``dimension.csv``: a model with 50 latent units of images that have fewer dimensions."""

    dimension: int  # latent units of the generator that were not held
    objective: str
    k: int
    seed: int
    train: int  # images
    epochs: int
    images: int  # of the test
    active: int
    pca_active: int
    nll: float


@cache
def load() -> tuple[PairedFigure, ...]:
    """Everything in paired.csv."""
    return tuple(_read(PAIRED, PairedFigure))


@cache
def load_seeds() -> tuple[SeedFigure, ...]:
    """Everything in seeds.csv."""
    return tuple(_read(SEEDS, SeedFigure))


@cache
def load_dimensions() -> tuple[KnownDimension, ...]:
    """Everything in dimension.csv."""
    return tuple(_read(DIMENSIONS, KnownDimension))


def lookup(measure: str, a: tuple[str, float], b: tuple[str, float]) -> PairedFigure | None:
    """The line of a measure for two models, each by its name and the NLL on its card; None where there is none, or
    where it is of another model of that name."""
    for line in load():
        if (line.measure, line.a, line.b) == (measure, a[0], b[0]):
            known = abs(line.nll_a - a[1]) < SAME and abs(line.nll_b - b[1]) < SAME
            return line if known else None
    return None


def parameters_text(parameters: Iterable[tuple[str, float]]) -> str:
    """Parameters of an objective, by name, as in SeedFigure."""
    return " ".join(f"{name}={value:g}" for name, value in parameters)


def text(lines: Iterable[Any]) -> str:
    """Lines of one kind as CSV, numbers with six digits."""
    lines = list(lines)
    file = io.StringIO()
    writer = csv.DictWriter(file, [field.name for field in fields(lines[0])], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        values: Mapping[str, Any] = asdict(line)
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in values.items()})
    return file.getvalue()


def _read(path: Path, kind: type[T]) -> list[T]:
    types: dict[str, Any] = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    with path.open(encoding="utf-8", newline="") as file:
        return [kind(**{name: types[name](value) for name, value in line.items()}) for line in csv.DictReader(file)]
