"""How the lines of ``measured`` are made: from models and test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor

from iwae.analysis import latent
from iwae.analysis.spread import spread
from iwae.evaluation import metrics
from iwae.evaluation.activity import activity_of
from iwae.evaluation.sampling import Progress
from iwae.evaluation.stats import mean_se
from iwae.model import Model
from iwae.results import comparison
from iwae.results.measured import PairedFigure, SeedFigure, parameters_text
from iwae.training.config import TrainConfig

RESAMPLES = 200  # sets of images behind the error of a number of units
SPREAD = {
    "mean posterior standard deviation": "std",
    "the same, active units only": "std_active",
    "tr Σ(x), posterior": "trace",
    "log det C, aggregated posterior": "log_det",
}


@dataclass(frozen=True)
class ImageFigures:
    """Measures of one model image by image."""

    drawn: dict[str, Tensor]  # by measure, [images], of ``samples`` draws each
    spread: dict[str, Tensor]  # by measure, [all images]
    units: dict[str, tuple[int, Tensor]]  # by measure: the number, and those of RESAMPLES sets of images
    samples: int
    latent: tuple[int, ...]

    @property
    def means(self) -> dict[str, float]:
        """Every measure over the images."""
        means = {name: mean_se(values)[0] for name, values in (self.drawn | self.spread).items()}
        return means | {name: float(count) for name, (count, _) in self.units.items()}

    def basis(self, name: str) -> tuple[int, int]:
        """Of how many images and draws a measure is; 0 where it needs no draws."""
        if name in self.drawn:
            return len(self.drawn[name]), self.samples
        return len(self.spread["std"]), 0


def measure(
    model: Model,
    config: TrainConfig,
    x: Tensor,
    *,
    images: int,
    samples: int,
    seed: int,
    progress: Progress | None = None,
) -> ImageFigures:
    """Measure a model on the test images x [n, pixels]: what needs draws on ``images`` of them, chosen by the seed, the
    rest on all. Raises as ``evaluation.evaluate``."""
    estimator, chosen = config.estimator(), comparison.choose(x, images, seed)
    own = config.k if estimator.bound.name == "iwae" and config.k > 1 else 1
    found = metrics.evaluate(model, chosen, samples=samples, seed=seed, ks=[own], prune=False, progress=progress)
    drawn = {name: getattr(found, name) for name in comparison.MEASURES}
    if config.objective in ("vae", "iwae"):
        drawn["gap"] = -found.nll - (found.bounds[own] if own > 1 else found.elbo)
    encoded = latent.encode(model, x)
    lines = {SPREAD[line.name]: line for line in spread(encoded, np.zeros(len(encoded))) if line.name in SPREAD}
    return ImageFigures(
        {name: values.cpu().double() for name, values in drawn.items()},
        {name: torch.from_numpy(line.values) for name, line in lines.items()},
        _units(torch.from_numpy(encoded.mean), seed),
        samples,
        tuple(model.config.latent),
    )


def over_seeds(
    trainings: Sequence[tuple[TrainConfig, ImageFigures]], before: Sequence[SeedFigure] = ()
) -> list[SeedFigure]:
    """Every measure over the seeds of trainings that are alike in the rest, where there are 2; and the lines of
    ``before`` that are of other cells."""
    groups: dict[tuple[str, str, str, int], list[ImageFigures]] = {}
    for config, figures in trainings:
        parameters = parameters_text(config.estimator().bound.parameters.items())
        groups.setdefault((config.model, config.objective, parameters, config.k), []).append(figures)
    groups = {cell: group for cell, group in groups.items() if len(group) > 1}
    lines = [line for line in before if line.cell not in groups]
    for (model, objective, parameters, k), group in groups.items():
        for name in sorted(group[0].means):
            values = [figures.means[name] for figures in group]
            found = mean(values), stdev(values), len(values), *group[0].basis(name)
            lines.append(SeedFigure(model, objective, parameters, k, name, *found))
    return lines


def pair(
    a: ImageFigures, b: ImageFigures, names: tuple[str, str], nlls: tuple[float, float], seed: int
) -> list[PairedFigure]:
    """Every measure that two models have in common, b − a on the same images; of other latent sizes only those in
    nats."""
    found, common = [], a.means.keys() & b.means.keys()
    for name in sorted(common if a.latent == b.latent else common & a.drawn.keys()):
        if name in a.units:
            se = (b.units[name][1] - a.units[name][1]).double().std().item()
        else:
            one, two = (figures.drawn | figures.spread for figures in (a, b))
            se = comparison.paired_difference(two[name], one[name])[1]
        assert se is not None  # of at least 2 images
        values = a.means[name], b.means[name]
        found.append(PairedFigure(name, *names, *values, values[1] - values[0], se, *a.basis(name), seed, *nlls))
    return found


def _units(means: Tensor, seed: int) -> dict[str, tuple[int, Tensor]]:
    """Active units of the first layer, from its ``means`` [n, latent], and those of RESAMPLES sets of n images."""
    generator = torch.Generator().manual_seed(seed)
    whole, active, pca = activity_of(means, means), [], []
    for _ in range(RESAMPLES):
        chosen = means[torch.randint(len(means), (len(means),), generator=generator)]
        one = activity_of(chosen, chosen)
        active.append(int(one.active.sum()))
        pca.append(one.pca_active)
    return {
        "active": (int(whole.active.sum()), torch.tensor(active)),
        "pca_active": (whole.pca_active, torch.tensor(pca)),
    }
