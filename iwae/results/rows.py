"""Measured against published: one row for each model, for the seeds of a model together, and for what is not run.

A difference from a published value is given in nats. Of one seed it has no standard error: ours over test images is the
uncertainty of the level, most of which a model trained by others on the same images shares; what it lacks is the noise
of a single seed, 0.1 to 0.3 nats, and of another binarization of the test images, 0.09. Of three seeds and more it has
that of their mean, between seeds. It is called lower or higher only beyond ``MARGIN``, and beyond ``SEED_NOISE`` of
those errors, and the words say of how many seeds ours is.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from iwae import checkpoints
from iwae.bounds import OBJECTIVES
from iwae.catalog import Entry
from iwae.data.sources import SOURCES
from iwae.evaluation.stats import plus_minus
from iwae.figures.base import Points
from iwae.gradients import GRADIENTS
from iwae.results import published
from iwae.results.published import Cell, Result
from iwae.system.files import printable
from iwae.system.paths import CHECKOUT
from iwae.training import commands
from iwae.training.config import TrainConfig
from iwae.training.wake_sleep import Refit

NATS = ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "pruned_nll")  # measures with a standard error
BY_AIS = ("nll_ais", "kl_posterior_ais", "ais_gap")  # of ``_by_ais``, likewise, of the models that were annealed
NEEDED = {*NATS, *(f"{name}_se" for name in NATS), "active_units", "pca_active_units", "samples", "images", "seed"}
MARGIN = 0.4  # nats that a difference from a published value must exceed to be called lower or higher
FEWEST_SEEDS = 3  # for an error between seeds: the standard deviation of two may be next to nothing by chance
ROUNDING = 12**-0.5  # standard deviation of what a whole number leaves out: equal counts are still not exact
SEED_NOISE = 3  # standard errors between seeds that a difference must exceed; their spread comes from a few seeds only


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    status: str  # measured, seeds (several models together) or not run
    name: str  # of the model, as in catalog.entries(), or of the cell
    cell: Cell
    command: str  # that trains it
    config: TrainConfig | None = None
    seeds: tuple[int, ...] = ()
    epochs: float | None = None  # over the training data, with those of the models that it started from
    minutes: float | None = None  # likewise; of what is not run an estimate, or unknown
    device: str = ""
    # evaluation.Metrics.summary() and BY_AIS; for seeds the means over them, *_sd their standard deviations, *_se the
    # means of the standard errors over images, the units of each model in a list, and their means active, pca_active
    metrics: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # of its file; None where the card alone is kept
    half: bool = False  # its weights are rounded to float16
    dreams: int = 0  # images of its own on which its encoder was refitted
    precision: str = "float32"  # as they were in training; where that is not known, as they were asked for
    members: tuple["Row", ...] = ()  # of seeds: the row of each

    @property
    def first(self) -> "Row":
        """Of seeds the row of the first, else the row itself."""
        return self.members[0] if self.members else self

    @property
    def regularisation(self) -> str:
        """``plain``, or what was used."""
        if self.config is None:
            return ""
        words = self.config.regularisation
        words += [f"encoder refitted on {self.dreams:,} own images"] * bool(self.dreams)
        return ", ".join(words) or "plain"

    @property
    def schedule(self) -> str:
        """``cosine``, ``cosine, first 40% with k = 5``."""
        if self.config is None:
            return ""
        warm = f", first {self.config.warm_share:.0%} with k = {self.config.warm_k}" if self.config.warm_k else ""
        kl = f", KL warm-up over {self.config.kl_warmup} epochs" if self.config.kl_warmup else ""
        return self.config.schedule + warm + kl

    @property
    def gradient(self) -> str:
        """``dreg, 1 resampled, bfloat16``."""
        if self.config is None:
            return ""
        resampled = f", {self.config.resample} resampled" if self.config.resample else ""
        precision = f", {self.precision}" if self.precision != "float32" else ""
        return self.config.gradient + resampled + precision

    def published(self, measure: str = "nll") -> Result | None:
        """The best published result of its cell."""
        return published.best(self.cell, measure)

    def difference(self, measure: str = "nll") -> float | None:
        """Measured minus published, nats; None where either is missing."""
        result, value = self.published(measure), self.metrics.get(measure)
        return None if result is None or value is None else value - getattr(result, measure)

    def between_seeds(self, measure: str) -> float | None:
        """The standard error of a measure's mean over seeds; None for fewer than FEWEST_SEEDS."""
        sd = self.metrics.get(f"{measure}_sd")
        return None if sd is None or len(self.seeds) < FEWEST_SEEDS else sd / math.sqrt(len(self.seeds))

    def verdict(self, measure: str = "nll") -> str:
        """``−0.72, lower`` beyond MARGIN, else ``+0.12``; empty where nothing can be compared. Of several seeds
        ``−0.72 ± 0.09, lower``, with the standard error of their mean, beyond SEED_NOISE of them too.

        After a change of objective nothing is judged, as the two trainings differ in length: ``−0.72, not judged``.
        """
        difference = self.difference(measure)
        if difference is None:
            return ""
        se = self.between_seeds(measure)
        text = plus_minus(difference, se, sign=True)
        if self.cell.start:
            return f"{text}, not judged"
        if abs(difference) <= max(MARGIN, SEED_NOISE * (se or 0.0)):
            return text
        return f"{text}, {'higher' if difference > 0 else 'lower'}"

    @property
    def seed_count(self) -> str:
        """``one seed``, ``3 seeds``."""
        return "one seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"

    @property
    def comparison(self) -> str:
        """All that can be compared with published values, in words."""
        parts = [
            f"{title} {text}"
            for title, measure in (
                ("NLL", "nll"),
                ("reconstruction", "reconstruction"),
                ("D_KL(q‖p(h|x))", "kl_posterior"),
            )
            if (text := self.verdict(measure))
        ]
        for title, ours, measure in (
            ("active units", "active_units", "active"),
            ("PCA active units", "pca_active_units", "pca_active"),
        ):
            if self.metrics.get(ours) and (theirs := self._published_units(measure)):
                parts.append(f"{title} {units(self.metrics[ours])}, published {theirs}")
        if not parts:
            return ""
        if (best := self.published()) and best.note:
            parts.append(f"note on {best.source}: {best.note}")
        return "; ".join([*parts, f"ours is {self.seed_count}"])

    def _published_units(self, measure: str) -> str:
        found = [(units(getattr(r, measure)), r.source) for r in published.lookup(self.cell) if getattr(r, measure)]
        return " or ".join(dict.fromkeys(f"{text} ({source})" for text, source in found))

    def record(self) -> dict[str, Any]:
        """Plain values for JSON and CSV; nats per image, None where unknown."""
        cell, config = self.cell, asdict(self.config) if self.config else {}
        out = {"status": self.status, "name": self.name, "dataset": cell.dataset, "model": cell.model}
        out |= {"objective": cell.objective, "parameters": " ".join(f"{n}={v:g}" for n, v in cell.parameters)}
        out |= {"k": cell.k, "start": cell.start, "gradient": self.gradient, "schedule": self.schedule}
        out |= {name: config.get(name) for name in ("learning_rate", "batch_size")}
        out |= {"regularisation": self.regularisation, "seeds": " ".join(map(str, self.seeds))}
        out |= {"epochs": self.epochs, "minutes": self.minutes, "device": self.device}
        out |= {name: self.metrics.get(name) for name in ("samples", "images")}
        for name in (*NATS, *BY_AIS):
            out |= {key: self.metrics.get(key) for key in (name, f"{name}_se", f"{name}_sd")}
        for name in ("active_units", "pca_active_units"):
            out[name] = units(self.metrics.get(name) or ())
        for name in ("nll", "reconstruction", "kl_posterior"):
            result = self.published(name)
            out[f"published_{name}"] = getattr(result, name) if result else None
            out[f"published_{name}_source"] = result.source if result else None
            out[f"difference_{name}"] = self.difference(name)
        for name in ("active", "pca_active"):
            out[f"published_{name}"] = self._published_units(name)
        notes = dict.fromkeys(f"{r.source}: {r.note}" for r in published.lookup(cell) if r.note)
        return out | {"comparison": self.comparison, "notes": "; ".join(notes), "command": self.command}


def cell(config: TrainConfig, history: Sequence[dict] = ()) -> Cell:
    """The cell that a training run belongs to; ``history`` as in a checkpoint's card.

    Its start is the last model before it with another objective: a run that goes on as before is one longer run.
    """
    estimator = config.estimator()
    values, objective = estimator.bound.parameters, config.objective
    if estimator.parameters:
        values, objective = estimator.parameters, config.gradient
    own = Cell(config.dataset, config.model, objective, config.k, tuple(values.items()))
    before = [cell(TrainConfig.from_dict(part["training"])).title for part in history]
    others = [title for title in before if title != own.title]
    return replace(own, start=others[-1] if others else "")


def collect(entries: dict[str, Entry]) -> tuple[list[Row], dict[str, str]]:
    """(rows of the models that are trained to their end, reasons by name for those with cards that say too little).

    A finished run that was copied among the shipped models counts once. Models that differ in their seed alone have
    a row together after their own.
    """
    found, refused, seen = [], {}, []
    for entry in entries.values():
        if not entry.shipped and not entry.card.progress.get("finished"):
            continue
        known = (entry.card.training, entry.card.progress)
        if known in seen:
            continue
        seen.append(known)
        try:
            row = _measured(entry)
            _ = row.record()  # needs every part of the card
            found.append((row, _all_but_seed(entry)))
        except Exception as error:  # what somebody else wrote into a card raises nearly every type
            refused[entry.key] = f"{printable(entry.key)}: its card cannot be read ({printable(error, 300)})"
    found.sort(key=lambda pair: _order(pair[0]))
    groups: dict[str, list[Row]] = {}
    for row, alike in found:
        groups.setdefault(alike, []).append(row)
    rows = []
    for group in groups.values():
        rows += group
        by_seed = {row.seeds: row for row in group if row.metrics}
        if len(by_seed) > 1:
            rows.append(_over_seeds(list(by_seed.values())))
    return rows, refused


def against_k(rows: Iterable[Row], dataset: str, model: str, measure: str) -> list[Points]:
    """A measure of VAE and IWAE against k, measured (± s.e.) and published, for a figure."""
    points = []
    rows = [row for row in rows if row.status == "measured" and row.metrics.get(measure) is not None]
    results = [result for result in published.load() if getattr(result, measure) is not None]
    for kind, title in (("vae", "VAE"), ("iwae", "IWAE")):
        ours = [row for row in rows if row.cell == Cell(dataset, model, kind, row.cell.k)]
        grid = Cell(dataset, model, kind, 0).grid
        theirs = [result for result in results if result.cell == replace(grid, k=result.cell.k)]
        if ours:
            values = [(row.cell.k, row.metrics[measure], row.metrics[f"{measure}_se"] or 0, row.name) for row in ours]
            k, y, error, names = zip(*values, strict=True)
            points.append(Points(f"{title}, measured", kind, k, y, names, error))
        if theirs:
            values = [(result.cell.k, getattr(result, measure), result.source) for result in theirs]
            points.append(Points(f"{title}, published", kind, *zip(*values, strict=True)))
    return points


def units(layers: Sequence) -> str:
    """``25``, ``24+7``; over seeds ``24–26+7``."""
    layers = [[layer] if isinstance(layer, int) else layer for layer in layers]
    return "+".join(f"{min(layer)}–{max(layer)}" if len(set(layer)) > 1 else str(layer[0]) for layer in layers)


def _measured(entry: Entry) -> Row:
    card, config = entry.card, entry.config
    if card.metrics and (lacking := sorted(NEEDED - set(card.metrics))):
        raise ValueError(f"its metrics lack {', '.join(lacking)}")
    history = card.progress.get("history") or []
    kept = entry.path if entry.path.suffix == checkpoints.SUFFIX else None  # or its card alone
    place, refits = _place(entry.path) if entry.shipped and kept else "", Refit.from_progress(card.progress)
    seconds = sum(part.get("seconds") or 0 for part in card.parts)
    return Row(
        "measured",
        entry.key,
        cell(config, history),
        " && ".join([commands.train(config, place), *(commands.refit(place, refit) for refit in refits)]),
        config,
        (config.seed,),
        entry.epochs,
        seconds / 60,
        card.progress.get("device", ""),
        card.metrics | _by_ais(card.metrics),
        kept,
        card.weights == "float16",
        sum(refit.images for refit in refits),
        str(card.progress.get("precision", config.precision)),
    )


def _by_ais(metrics: dict[str, Any]) -> dict[str, float | None]:
    """BY_AIS, over all images of the card: its own measures, and what L_S misses on the images that were annealed.

    A mean over these alone would be of other images than the NLL beside it, of which 1,000 differ by 0.7 nats from all.
    Nothing where L_S was of another S: that misses something else.
    """
    found = metrics.get("ais")
    if not found or found["samples"] != metrics.get("samples"):
        return {}
    out = {"ais_gap": found["gap"], "ais_gap_se": found["gap_se"]}
    for name, sign in (("nll", -1), ("kl_posterior", 1)):
        errors = metrics[f"{name}_se"], found["missed_se"]
        out[f"{name}_ais"] = metrics[name] + sign * found["missed"]
        out[f"{name}_ais_se"] = None if None in errors else math.hypot(*errors)
    return out


def _over_seeds(group: list[Row]) -> Row:
    first, metrics = group[0], {}
    for name in (*NATS, *BY_AIS):
        columns: list[list[Any]] = [[row.metrics.get(key) for row in group] for key in (name, f"{name}_se")]
        values, errors = columns
        if None not in values + errors:
            metrics |= {name: mean(values), f"{name}_sd": stdev(values), f"{name}_se": mean(errors)}
    for name in ("active_units", "pca_active_units"):
        counts = [row.metrics[name] for row in group]
        metrics[name] = None if None in counts else [list(layer) for layer in zip(*counts, strict=True)]
        if None not in counts:
            totals, measure = [sum(layers) for layers in counts], name.removesuffix("_units")
            metrics |= {measure: mean(totals), f"{measure}_sd": math.hypot(stdev(totals), ROUNDING)}
    metrics |= {name: first.metrics[name] for name in ("samples", "images")}
    seeds = tuple(row.seeds[0] for row in group)
    return replace(
        first,
        status="seeds",
        name=f"{first.cell.place}, {len(seeds)} seeds",
        seeds=seeds,
        epochs=mean(row.epochs or 0 for row in group),
        minutes=mean(row.minutes or 0 for row in group),
        metrics=metrics,
        path=None,
        members=tuple(group),
    )


def _all_but_seed(entry: Entry) -> str:
    """Equal for two models that differ in their seed alone, and were measured alike."""
    history = [{**part["training"], "seed": 0, "start": None} for part in entry.card.progress.get("history") or []]
    metrics = [entry.card.metrics.get(name) for name in ("samples", "images")]
    metrics.append([{**settings, "seed": 0} for settings in entry.card.progress.get("refits", [])])
    return json.dumps([asdict(replace(entry.config, seed=0, start=None)), str(entry.card.model), history, metrics])


def _order(row: Row) -> tuple:
    cell = row.cell
    objectives = (*OBJECTIVES, *GRADIENTS)
    place = (*_dataset_order(cell.dataset), cell.model, bool(cell.start), objectives.index(cell.objective))
    return (*place, cell.parameters, cell.k, cell.start, row.regularisation != "plain", row.epochs, row.seeds, row.name)


def _dataset_order(name: str) -> tuple[int, str]:
    """Published data sets as they are listed, then those that were added."""
    published = list(SOURCES)
    return (published.index(name) if name in published else len(published)), name


def _place(path: Path) -> str:
    """A path below the checkout as seen from there, any other as it is."""
    return str(path.relative_to(CHECKOUT)) if CHECKOUT and path.is_relative_to(CHECKOUT) else str(path)
