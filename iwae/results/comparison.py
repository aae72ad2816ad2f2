"""How sure a difference is: paired over test images, between seeds, and between a card and a second measurement."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from iwae.data.drawn import DrawnImages
from iwae.evaluation import metrics as evaluation
from iwae.evaluation.metrics import Metrics
from iwae.evaluation.sampling import Progress, stages
from iwae.evaluation.stats import decimal, mean_se
from iwae.model import Model
from iwae.results import measured
from iwae.results.rows import SEED_NOISE, Row
from iwae.training.config import PARAMETERS, TrainConfig

MEASURES = ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior")
AGREE = 3  # standard errors within which a second measurement must lie


def paired_difference(a: Tensor, b: Tensor) -> tuple[float, float | None]:
    """Mean of a − b, both [images] and of the same images, and its standard error over images.

    What makes an image hard for both models cancels, so that the error is smaller than that of two separate means.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values must be of the same images, not of shapes {tuple(a.shape)}, {tuple(b.shape)}")
    return mean_se(a.cpu().double() - b.cpu().double())


@dataclass(frozen=True)
class Pair:
    """A measure of two models on the same images: means with their standard errors, and a − b."""

    a: float
    a_se: float
    b: float
    b_se: float
    difference: float
    se: float  # paired over images

    @property
    def unpaired_se(self) -> float:
        """What the error of the difference would be on different images."""
        return math.hypot(self.a_se, self.b_se)


def compare(a: Metrics, b: Metrics) -> dict[str, Pair]:
    """Every measure of two models that ``evaluation.evaluate`` has measured on the same images (at least 2)."""
    values = {name: (getattr(a, name), getattr(b, name)) for name in MEASURES}
    return {name: _pair(x, y) for name, (x, y) in values.items()}


def _pair(x: Tensor, y: Tensor) -> Pair:
    (a, a_se), (b, b_se), (difference, se) = mean_se(x), mean_se(y), paired_difference(x, y)
    if a_se is None or b_se is None or se is None:
        raise ValueError(f"two models are compared on at least 2 images, not on {len(x)}")
    return Pair(a, a_se, b, b_se, difference, se)


@dataclass(frozen=True)
class Difference:
    """Of the NLL's means over seeds, ``a`` minus ``b``, in nats, and its standard errors."""

    a: Row
    b: Row
    value: float
    se: float  # between seeds
    se_images: float | None  # over the same test images, of one seed; None where they were not measured together

    @property
    def text(self) -> str:
        """``IWAE k = 5 minus VAE k = 1: −2.20 nats ± 0.04 between seeds ± 0.03 over test images, larger than the noise
        between seeds``."""
        words = "larger than" if abs(self.value) > SEED_NOISE * self.se else "within"
        told = f"{decimal(self.value, sign=True)} nats ± {decimal(self.se)} between seeds"
        if self.se_images is not None:
            told += f" ± {decimal(self.se_images)} over test images"
        return f"{self.a.cell.title} minus {self.b.cell.title}: {told}, {words} the noise between seeds"


def seed_differences(rows: Iterable[Row]) -> list[Difference]:
    """Of the NLL between any two objectives that were trained alike, on one data set, with several seeds each."""
    found = []
    for b, a in combinations([row for row in rows if row.members], 2):
        se = between_seeds("nll", a, b)
        if se is None or a.cell == b.cell or a.cell.start != b.cell.start:
            continue
        if a.config and b.config and _alike(a.config) == _alike(b.config):
            found.append(Difference(a, b, a.metrics["nll"] - b.metrics["nll"], se, _over_images(b, a)))
    return found


def between_seeds(measure: str, *rows: Row) -> float | None:
    """The standard error between seeds of the difference between the means of two rows, where both have enough."""
    errors = [error for row in rows if (error := row.between_seeds(measure)) is not None]
    return math.hypot(*errors) if len(errors) == len(rows) else None


def _over_images(*rows: Row) -> float | None:
    """The paired standard error of the NLL's difference between two models of these rows, over all test images."""
    for one, two in product(*(row.members for row in rows)):
        if line := on_the_same_images("nll", one, two):
            return line.over_images(one.metrics["images"])
    return None


def on_the_same_images(measure: str, a: Row, b: Row) -> measured.PairedFigure | None:
    """What was measured of these two models on the same images, while they had the NLL that they have."""
    return measured.lookup(measure, *((row.name, row.metrics["nll"]) for row in (a, b)))


@dataclass(frozen=True)
class Check:
    """A measure of a card against a second measurement with other draws, in nats per image."""

    stored: float
    measured: float
    se: float  # of measured − stored

    @property
    def ratio(self) -> float:
        """The difference in standard errors."""
        difference = self.measured - self.stored
        return difference / self.se if self.se else math.copysign(math.inf, difference) if difference else 0.0

    @property
    def agrees(self) -> bool:
        return abs(self.ratio) <= AGREE


def choose(x: Tensor | DrawnImages, count: int, seed: int) -> Tensor | DrawnImages:
    """``count`` of the images x [n, pixels], at random by the seed; where they are not more, all in their order."""
    if count >= len(x):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]]


def verify(
    model: Model, metrics: dict[str, Any], x: Tensor | DrawnImages, images: int, *, seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Check]:  # fmt: skip
    """Measure a model again on ``images`` of the images behind its card's ``metrics``; x are all test images.

    It is measured twice, with the card's seed and with another one, s. Half the variance of their paired difference
    d is the noise of the draws, v = Var(d)/2; what images differ in is the rest of the card's own variance over its n
    images, S² = n (s.e.)² − v. With N of them chosen at random, (mean of s) − (card) has the variance
    (1 − N/n) S²/N + v/N + v/n. For N = n it is that of the mean of d: the error of a paired difference.
    """
    x = choose(x, metrics["images"], metrics["seed"])
    chosen = choose(x, images, seed)
    if len(chosen) < 2:
        raise ValueError(f"a standard error needs at least 2 images, not {len(chosen)}")
    seeds = metrics["seed"], metrics["seed"] + 1 + seed
    first, second = (
        evaluation.evaluate(model, chosen, samples=metrics["samples"], seed=s, prune=False, progress=stage)
        for s, stage in zip(seeds, stages(progress, 2), strict=True)
    )
    return {
        name: _check(metrics[name], metrics[f"{name}_se"], getattr(first, name), getattr(second, name), len(x))
        for name in MEASURES
    }


def _check(stored: float, stored_se: float, first: Tensor, second: Tensor, population: int) -> Check:
    first, second = first.cpu().double(), second.cpu().double()
    n, total = len(second), population
    noise = ((first - second).var() / 2).item()
    spread = max(total * stored_se**2 - noise, 0.0)
    variance = (1 - n / total) * spread / n + noise / n + noise / total
    return Check(stored, second.mean().item(), math.sqrt(variance))


def _alike(config: TrainConfig) -> TrainConfig:
    """The settings that two runs must share for their objectives to be compared, as in ``claim_figures.alike``."""
    plain = dict.fromkeys((*PARAMETERS, "start"))
    own = {"objective": "vae", "k": 1, "warm_k": 0, "gradient": "exact", "resample": 0, "seed": 0}
    return replace(config, precision="float32", **plain, **own)
