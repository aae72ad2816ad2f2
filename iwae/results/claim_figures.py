"""Figures that a claim about VAE and IWAE is put to, each with an error and a verdict.

A claim predicts the sign of a difference, or that it is small. It is put to two kinds of figures. ``pair``: shipped
models that were trained alike. The error of their difference combines that over the same images with that between
seeds: of the means over seeds, where both have several and the cards hold the measure, else of one seed each, √2 times
the standard deviation pooled over the cells of docs/seeds.toml with as many layers.
``over_seeds``: the difference of two means over seeds after a short training, with the error between seeds. Where seeds
of a short training say little of a long one, ``signs``: of the differences in all pairs that were trained alike.

The rule: a difference beyond ``SEED_NOISE`` errors in the direction of the claim holds, as far in the other it does
not, and all between is within the error. What is claimed to be similar holds if all of the interval of as many errors
lies within ``SIMILAR``, and does not hold if all of it lies outside. Signs hold at the level ``LEVEL``. Without an
error nothing is judged.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import mean, stdev

from iwae.catalog import LAYERS, OWN
from iwae.evaluation.stats import plus_minus
from iwae.results import comparison, measured
from iwae.results.measured import SeedFigure
from iwae.results.published import Cell
from iwae.results.rows import ROUNDING, SEED_NOISE, Row

HOLDS, FAILS, WITHIN, UNJUDGED = "holds", "does not hold", "within the error", "not judged"
SIMILAR = 1.0  # nats; the losses that the poster calls similar differ by 0.46
LEVEL = 0.01  # of the sign test
RULE = (
    f"A difference holds, or does not, beyond {SEED_NOISE} standard errors; between, it is within the error. The error "
    "of one training against another is that over the same test images together with that between seeds. "
    f"Reconstruction losses are similar where they differ by less than {SIMILAR:g} nat, errors included; signs are "
    f"judged at the {LEVEL:.0%} level; what has no error is not judged."
)
TITLES = {  # and units
    "nll": ("NLL", "nats"),
    "gap": ("log p̂(x) − own bound", "nats"),
    "kl_posterior": ("D_KL(q‖p(h|x))", "nats"),
    "reconstruction": ("reconstruction loss", "nats"),
    "std": ("mean σ of q, all units", ""),
    "std_active": ("mean σ of q, active units", ""),
    "active": ("active units", "units"),
    "pca_active": ("PCA active directions", "directions"),
}


@dataclass(frozen=True)
class ClaimFigure:
    """One figure for a claim."""

    measure: str  # a key of TITLES
    what: str  # is compared: ``IWAE k = 50 − VAE k = 50``
    value: float | None
    error: float | None  # its standard error
    verdict: str
    basis: str  # data, epochs, seeds, images, draws; or how to measure it

    @property
    def title(self) -> str:
        """The measure in words."""
        return TITLES[self.measure][0]

    @property
    def text(self) -> str:
        """``−1.00 ± 0.31 nats``."""
        if self.value is None:
            return "–"
        unit = TITLES[self.measure][1]
        digits = {"nats": 2, "": 3}.get(unit, 0 if self.error is None and self.value == int(self.value) else 1)
        return f"{plus_minus(self.value, self.error, digits, sign=True)} {unit}".strip()


def plain(rows: Iterable[Row]) -> dict[Cell, Row]:
    """The shipped models that were measured and not regularised: the shortest training of each cell, with all of its
    seeds."""
    found: dict[Cell, Row] = {}
    for row in sorted(rows, key=lambda row: (row.epochs or 0, not row.members)):
        own = any(each.name.startswith(tuple(OWN)) for each in row.members or [row])
        if row.metrics and row.regularisation == "plain" and not own:
            found.setdefault(row.cell, row)
    return found


def pair(rows: Mapping[Cell, Row], measure: str, a: Cell, b: Cell, sign: int) -> ClaimFigure:
    """b − a of shipped models; ``sign`` is that of the claimed difference, 0 where it is to be small."""
    what = f"{_name(b, a)} − {_name(a, b)}"
    one, two = rows.get(a), rows.get(b)
    if one is None or two is None or not alike(one.first, two.first):
        return _missing(measure, what, "no two models that were trained alike")
    line = comparison.on_the_same_images(measure, one.first, two.first)
    images, draws = one.metrics["images"], one.metrics["samples"]
    between = comparison.between_seeds(measure, one, two)
    if between is None:
        one, two, sd = one.first, two.first, seed_sd(measure, a.model, b.model)
        between = None if sd is None else math.sqrt(2) * sd
    if measure in one.metrics:  # on the cards: nats with their errors, and over seeds the numbers of units, without
        value = two.metrics[measure] - one.metrics[measure]
        over_images = math.hypot(*(row.metrics.get(f"{measure}_se", 0.0) for row in (one, two)))
        draws = draws if f"{measure}_se" in one.metrics else 0
        if line:  # on the same images most of that cancels
            over_images = line.over_images(images)
    elif line:
        value, over_images, images, draws = line.difference, line.se, line.images, line.samples
    else:
        return _missing(measure, what, "python -m iwae findings --measure")
    error = None if between is None else math.hypot(over_images, between)
    seeds = " and ".join(dict.fromkeys(row.seed_count for row in (one, two)))
    basis = f"{a.dataset}, {_layers(a, b)}, {one.epochs:,.0f} epochs, {seeds}; {_of(images, draws)}"
    return ClaimFigure(measure, what, value, error, verdict(value, error, sign), basis)


def same(rows: Mapping[Cell, Row], measure: str, a: Cell, b: Cell) -> ClaimFigure:
    """b − a of two shipped models, which are claimed to be the same: more than the error apart, they are not."""
    figure = pair(rows, measure, a, b, 0)
    return figure if figure.value is None else replace(figure, verdict=_none(figure.value, figure.error))


def over_seeds(measure: str, a: Cell, b: Cell, sign: int) -> ClaimFigure:
    """b − a of two means over the seeds of docs/seeds.toml."""
    what = f"{_name(b, a)} − {_name(a, b)}"
    one, two = _over_seeds(a, measure), _over_seeds(b, measure)
    if one is None or two is None:
        return _missing(measure, what, "python -m iwae sweep docs/seeds.toml")
    value, error = two.mean - one.mean, math.sqrt(one.sd**2 / one.seeds + two.sd**2 / two.seeds)
    basis = f"{a.dataset}, {_layers(a, b)}, 6 epochs, {one.seeds} seeds; {_of(one.images, one.samples)}"
    return ClaimFigure(measure, what, value, error, verdict(value, error, sign), basis)


def signs(rows: Mapping[Cell, Row], sign: int) -> ClaimFigure:
    """Active units of an IWAE minus those of a VAE of as many draws, or else of one, in all pairs that were trained
    alike, whatever their data: a sign test, in which equal ones count for neither. The value is the median."""
    found = []
    for b, two in rows.items():
        if b.objective == "iwae" and b.k > 1 and not b.start:
            others = [rows.get(Cell(b.dataset, b.model, "vae", k)) for k in (b.k, 1)]
            one = next((row.first for row in others if row and alike(row.first, two.first)), None)
            if one:
                found.append(sum(two.first.metrics["active_units"]) - sum(one.metrics["active_units"]))
    found = sorted(difference for difference in found if difference)
    if not found:
        return _missing("active", "IWAE − VAE", "no two models that were trained alike")
    agreeing = sum(difference * sign > 0 for difference in found)
    said = HOLDS if _chance(agreeing, len(found)) < LEVEL else WITHIN
    said = FAILS if _chance(len(found) - agreeing, len(found)) < LEVEL else said
    basis = f"{agreeing} of {len(found)} pairs of models trained alike agree, all data sets and architectures, one seed"
    return ClaimFigure("active", "IWAE − VAE, median of all pairs", found[len(found) // 2], None, said, basis)


def known_dimension(objective: str) -> list[ClaimFigure]:
    """PCA active directions minus the latent units of the generator that drew the images, for each generator."""
    groups: dict[int, list[measured.KnownDimension]] = {}
    for line in measured.load_dimensions():
        if line.objective == objective:
            groups.setdefault(line.dimension, []).append(line)
    found = []
    for dimension, lines in groups.items():
        off, first = [line.pca_active - dimension for line in lines], lines[0]
        value, error = mean(off), None
        if len(off) > 1:
            error = math.hypot(stdev(off), ROUNDING) / math.sqrt(len(off))
        said = HOLDS if not any(off) and error is not None else _none(value, error)
        what = f"{objective.upper()} k = {first.k} − the {dimension} of the generator"
        basis = f"{first.train:,} generated images, {first.epochs} epochs, "
        basis += f"{len(lines)} seed{'s' * (len(lines) > 1)}; {_of(first.images, 0)}"
        found.append(ClaimFigure("pca_active", what, value, error, said, basis))
    what = f"{objective.upper()} − the generator's latent units"
    return found or [_missing("pca_active", what, "python -m benchmarks.dimension")]


def verdict(value: float, error: float | None, sign: int) -> str:
    """By the rule above."""
    if error is None:
        return UNJUDGED
    wide = SEED_NOISE * error
    if sign:
        return HOLDS if sign * value > wide else FAILS if sign * value < -wide else WITHIN
    return HOLDS if abs(value) + wide < SIMILAR else FAILS if abs(value) - wide > SIMILAR else WITHIN


def alike(a: Row, b: Row) -> bool:
    """Whether two models may be compared: the same data, epochs, schedule, learning rate, seed and measurement.
    Objective, k, gradient, the precision of products and the number of layers may differ."""
    one, two, same = a.config, b.config, ("schedule", "learning_rate", "batch_size", "seed")
    return (
        one is not None
        and two is not None
        and (a.cell.dataset, a.cell.start, a.epochs) == (b.cell.dataset, b.cell.start, b.epochs)
        and all(getattr(one, name) == getattr(two, name) for name in same)
        and all(a.metrics[name] == b.metrics[name] for name in ("images", "samples", "seed"))
    )


def seed_sd(measure: str, *models: str) -> float | None:
    """Standard deviation of a measure between seeds, pooled over the cells of docs/seeds.toml of these architectures;
    None where unknown."""
    lines = [line for line in measured.load_seeds() if line.measure == measure and line.model in models]
    freedom = sum(line.seeds - 1 for line in lines)
    return math.sqrt(sum((line.seeds - 1) * line.sd**2 for line in lines) / freedom) if freedom else None


def _none(value: float, error: float | None) -> str:
    """The verdict on a difference that is claimed to be none: it can only fail."""
    return verdict(-abs(value), error, 1)


def _missing(measure: str, what: str, reason: str) -> ClaimFigure:
    return ClaimFigure(measure, what, None, None, UNJUDGED, reason)


def _over_seeds(cell: Cell, measure: str) -> SeedFigure | None:
    own = cell.model, cell.objective, measured.parameters_text(cell.parameters), cell.k
    return next((line for line in measured.load_seeds() if (line.cell, line.measure) == (own, measure)), None)


def _chance(agreeing: int, of: int) -> float:
    """P(at least so many heads) of a fair coin."""
    return sum(math.comb(of, heads) for heads in range(agreeing, of + 1)) / 2**of


def _name(cell: Cell, other: Cell) -> str:
    """The objective, and the number of layers where the two differ in it."""
    return f"{cell.title}, {LAYERS[cell.model]}" if cell.model != other.model else cell.title


def _layers(a: Cell, b: Cell) -> str:
    return LAYERS[a.model] if a.model == b.model else f"{LAYERS[a.model]} and {LAYERS[b.model]}"


def _of(images: int, draws: int) -> str:
    return f"{images:,} test images" + (f", {draws:,} draws" if draws else "")
