"""Measures of a trained model, all from one streamed sampling pass; nats per image, ± standard error over images.

A result depends on the images, the number of draws and the seed alone (``sampling``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.bounds import Bound
from iwae.data.drawn import DrawnImages
from iwae.evaluation.activity import ACTIVITY_DRAWS, THRESHOLD, Activity, active_units, mask_units
from iwae.evaluation.sampling import Block, Checked, Progress, checked, map_draws, stages
from iwae.evaluation.stats import RunningBound, RunningWeights, mean_se, plus_minus
from iwae.evaluation.surprise import quantiles
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel, Sample, UnitMask, to_float64


@dataclass(frozen=True)
class Metrics:
    """Every measure of ``evaluate``, image by image; ``summary()`` gives the means with their standard errors."""

    nll: Tensor  # −L_samples(x), [images]; the tensors below likewise
    elbo: Tensor  # E_q[log w]
    reconstruction: Tensor  # −log p(x|h) of one draw; for L > 1, h₁ is drawn down from the top layer's draw
    kl_prior: Tensor  # D_KL(q(h|x) ‖ p(h)) = E_q[log q(h|x) − log p(h)]
    kl_posterior: Tensor  # D_KL(q(h|x) ‖ p(h|x)) = L_samples − ELBO of the same draws, so never negative
    ess: Tensor  # effective sample size (Σw)²/Σw², of ``samples`` draws
    bounds: dict[int, Tensor]  # L_k for other k, from disjoint groups of the same draws
    activity: tuple[Activity, ...] | None  # of each stochastic layer, from the pixels upwards; None of a single image
    pruned_nll: Tensor | None  # −L_samples of the model without its inactive units, where these are known
    samples: int
    seed: int
    threshold: float  # of the variance that makes a unit active

    def __repr__(self) -> str:
        measured = (
            f"{name} {plus_minus(*mean_se(values))}" for name, values in (("NLL", self.nll), ("ELBO", self.elbo))
        )
        told = f"{len(self.nll):,} images, {self.samples:,} draws each, seed {self.seed}"
        return f"Metrics({told}: {', '.join(measured)} nats per image)"

    def summary(self) -> dict:
        """Plain numbers for JSON: means over images, ``*_se`` their standard errors, and n, k, seed, threshold.

        None is what a single image does not tell: standard errors, active units, and the pruned NLL; and what few do
        not: quantiles of the NLL (``surprise``).
        """
        out = {}
        for name in ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "ess", "pruned_nll"):
            values = getattr(self, name)
            out[name], out[f"{name}_se"] = mean_se(values) if values is not None else (None, None)
        out["quantiles"] = quantiles(self.nll, self.samples, self.seed)
        out["bounds"] = {str(k): mean_se(values) for k, values in self.bounds.items()}
        out["active_units"] = self.activity and [int(layer.active.sum()) for layer in self.activity]
        out["pca_active_units"] = self.activity and [layer.pca_active for layer in self.activity]
        out |= {"threshold": self.threshold, "activity_draws": ACTIVITY_DRAWS}
        return out | {"images": len(self.nll), "samples": self.samples, "seed": self.seed}


@torch.no_grad()
def evaluate(
    model: LatentModel,
    x: Tensor | DrawnImages,
    *,
    samples: int = 5000,
    seed: int = 0,
    ks: Sequence[int] = (),
    threshold: float = THRESHOLD,
    prune: bool = True,
    progress: Progress | None = None,
) -> Metrics:
    """Measure ``model`` on images x [n, pixels] with ``samples`` draws from q(h|x) for each.

    One image is enough; what takes several to know is then None (``Metrics.summary``). Of ``Dataset.x`` only the images
    that are being measured are in memory.

    Args:
        ks: further k for which L_k is wanted, each from 1 to ``samples``.
        threshold: variance above which a unit is active.
        prune: also the NLL without the inactive units, at the cost of a second pass when there are any.

    Raises ValueError for images that the model does not take (``Model.check_images``) or numbers out of range;
    NonFiniteError where a result is not finite.
    """
    images = checked(model, x)
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if bad := [k for k in ks if not 1 <= k <= samples]:
        raise ValueError(f"k must lie between 1 and the {samples} samples, not {bad[0]}")
    activity = active_units(model, images, seed=seed, threshold=threshold) if len(images) > 1 else None
    active = [layer.active for layer in activity or ()]
    unit_masks = (
        None
        if activity is None or all(layer.all() for layer in active)
        else mask_units(activity, active, images.device)
    )
    whole_pass, *pruned_pass = stages(progress, 2 if prune and unit_masks else 1)

    def measure(block: Block, draws: Iterator[Sample]) -> dict[str, Tensor]:
        return _measure(model, block, draws, samples, ks)

    parts = map_draws(measure, model, images, samples, seed=seed, progress=whole_pass)
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name, values in whole.items():
        check_finite(values, name)
    pruned = whole["nll"] if prune and activity else None
    if pruned_pass:
        pruned = -_log_mean_weights(model, images, samples, seed, unit_masks, pruned_pass[0])
    bounds = {k: whole.pop(f"L_{k}") for k in ks}
    told = {"samples": samples, "seed": seed, "threshold": threshold}
    return Metrics(**whole, bounds=bounds, activity=activity, pruned_nll=pruned, **told)


@torch.no_grad()
def mean_bound(model: LatentModel, x: Tensor | DrawnImages, bound: Bound, k: int, *, seed: int = 0) -> Tensor:
    """``bound`` of k draws for each image of x [n, pixels] → [n], with the weight of the KL that is the bound's own.
    Raises as ``evaluate`` does."""

    def measure(block: Block, draws: Iterator[Sample]) -> Tensor:
        return bound(torch.cat([sample.log_weights(bound.kl_weight) for sample in draws]))

    values = torch.cat(map_draws(measure, model, checked(model, x), k, seed=seed))
    check_finite(values, "the bound")
    return values


@torch.no_grad()
def log_evidence(
    model: LatentModel,
    x: Tensor | DrawnImages,
    *,
    samples: int,
    seed: int = 0,
    unit_masks: tuple[UnitMask, ...] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """L_samples for each image of x [n, pixels] → [n], nats: an estimate of log p(x); with ``unit_masks`` that of
    the smaller model. The draws of one seed are the same with and without, so differences are paired. Raises as
    ``evaluate`` does."""
    values = _log_mean_weights(model, checked(model, x), samples, seed, unit_masks, progress)
    check_finite(values, "log p̂(x)")
    return values


def _measure(
    model: LatentModel, block: Block, draws: Iterator[Sample], samples: int, ks: Sequence[int]
) -> dict[str, Tensor]:
    """All measures of one block of images."""
    x = block.x
    weights = RunningWeights(len(x), x.device)
    log_w_sum, kl_sum = to_float64(torch.zeros(2, len(x), device=x.device))
    running = {k: RunningBound(k) for k in ks}
    reconstruction = None
    for sample in draws:
        log_w = sample.log_w
        weights.add(log_w)
        log_w_sum += to_float64(log_w).sum(0)
        kl_sum += to_float64(sample.log_qh - sample.log_ph).sum(0)
        for bound in running.values():
            bound.add(log_w)
        if reconstruction is None:
            reconstruction = _reconstruction(model, x, sample, block.generator.initial_seed())
    log_mean_w = weights.log_mean()
    elbo = log_w_sum / samples
    out = {"nll": -log_mean_w, "elbo": elbo, "reconstruction": reconstruction, "kl_prior": kl_sum / samples}
    # rounding alone could make the two values of one draw differ
    out |= {"kl_posterior": (log_mean_w - elbo).clamp_min(0), "ess": weights.ess()}
    return out | {f"L_{k}": bound.mean() for k, bound in running.items()}


def _reconstruction(model: LatentModel, x: Tensor, sample: Sample, seed: int) -> Tensor:
    """−log p(x|h) of the first draw; with more layers, h₁ comes down through the decoder from h_L."""
    if not model.decoder:
        return -sample.log_px[0]
    generator = torch.Generator(x.device).manual_seed(seed + 1)
    return -model.log_likelihood(x, model.ancestral_sample(sample.h[-1][:1], generator), checked=True)[0]


def _log_mean_weights(
    model: LatentModel,
    x: Checked,
    samples: int,
    seed: int,
    unit_masks: tuple[UnitMask, ...] | None,
    progress: Progress | None = None,
) -> Tensor:
    """log of the mean weight of each image's draws, [n]."""

    def measure(block: Block, draws: Iterator[Sample]) -> Tensor:
        weights = RunningWeights(len(block.x), block.x.device)
        for sample in draws:
            weights.add(sample.log_w)
        return weights.log_mean()

    return torch.cat(map_draws(measure, model, x, samples, seed=seed, unit_masks=unit_masks, progress=progress))
