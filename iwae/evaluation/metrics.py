"""Measures of a trained model, all from one streamed sampling pass; nats per image, ± standard error over images.

Draws come in fixed blocks (``draws``), so a result depends on (images, samples, seed) alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iwae.bounds import Bound
from iwae.evaluation.sampling import Draws, blocks
from iwae.kernels import threads
from iwae.kernels.finite import check_finite
from iwae.model import Keep, Model, Sample, wide
from iwae.system import malloc, reprs

ACTIVITY_DRAWS = 100  # draws behind E_q[h|x] above the first stochastic layer
NOT_COUNTED = "not counted: a variance over images needs at least 2"  # what to say of the units of a single image
THRESHOLD = 0.01  # of the variance that makes a unit active (Burda et al. 2016, section 5)

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class Activity:
    """How much each unit of one stochastic layer tells of the image: Cov_x(E_q[h|x]) over ``images`` images."""

    mean: Tensor  # [latent], the mean over images of E_q[h|x]; these tensors lie on the CPU, in float64
    covariance: Tensor  # [latent, latent]
    threshold: float

    __repr__ = reprs.one_line

    @property
    def variance(self) -> Tensor:
        """Var_x(E_q[h_u|x]) of each unit, [latent]."""
        return self.covariance.diagonal()

    @property
    def active(self) -> Tensor:
        """The units whose variance lies above the threshold, [latent] of bool. Burda et al. 2016, section 5."""
        return self.variance > self.threshold

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the covariance, largest first, [latent]."""
        return torch.linalg.eigvalsh(self.covariance).flip(0)

    @property
    def pca_active(self) -> int:
        """Number of eigenvalues above the threshold. Arnal, Lee & Pezzotti 2021."""
        return int((self.eigenvalues > self.threshold).sum())


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

        None is what a single image does not tell: standard errors, active units, and the pruned NLL.
        """
        out = {}
        for name in ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "ess", "pruned_nll"):
            values = getattr(self, name)
            out[name], out[f"{name}_se"] = mean_se(values) if values is not None else (None, None)
        out["bounds"] = {str(k): mean_se(values) for k, values in self.bounds.items()}
        out["active_units"] = self.activity and [int(layer.active.sum()) for layer in self.activity]
        out["pca_active_units"] = self.activity and [layer.pca_active for layer in self.activity]
        out |= {"threshold": self.threshold, "activity_draws": ACTIVITY_DRAWS}
        return out | {"images": len(self.nll), "samples": self.samples, "seed": self.seed}


def mean_se(values: Tensor) -> tuple[float, float | None]:
    """(mean, its standard error over images); the error of a single image is unknown, None."""
    values = values.cpu().double()
    se = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None
    return values.mean().item(), se


def plus_minus(value: float, se: float | None, digits: int = 2, width: int = 0) -> str:
    """``87.20 ± 0.24``, or ``87.20`` where the standard error is unknown; the value takes at least ``width``."""
    return f"{value:{width}.{digits}f}" + ("" if se is None else f" ± {se:.{digits}f}")


@torch.no_grad()
def evaluate(
    model: Model,
    x: Tensor,
    *,
    samples: int = 5000,
    seed: int = 0,
    ks: Sequence[int] = (),
    threshold: float = THRESHOLD,
    prune: bool = True,
    progress: Progress | None = None,
) -> Metrics:
    """Measure ``model`` on images x [n, pixels] of zeros and ones with ``samples`` draws from q(h|x) for each.

    One image is enough; what takes several to know is then None (``Metrics.summary``).

    Args:
        ks: further k for which L_k is wanted, each from 1 to ``samples``.
        threshold: variance above which a unit is active.
        prune: also the NLL without the inactive units, at the cost of a second pass when there are any.

    Raises ValueError for images that the model does not take (``Model.check_images``) or numbers out of range;
    NonFiniteError where a result is not finite.
    """
    x = model.check_images(x)
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if bad := [k for k in ks if not 1 <= k <= samples]:
        raise ValueError(f"k must lie between 1 and the {samples} samples, not {bad[0]}")
    activity = active_units(model, x, seed=seed, threshold=threshold) if len(x) > 1 else None
    active = [layer.active for layer in activity or ()]
    keep = None if all(layer.all() for layer in active) else keep_units(activity, active, x.device)
    passes = 2 if prune and keep else 1
    steps = Steps(progress, passes * len(x))
    draws = Draws(model, x, samples)
    parts = steps.take(blocks(x, seed), lambda block, generator: _measure(draws, block, generator, ks))
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name, values in whole.items():
        check_finite(values, name)
    pruned = whole["nll"] if prune and activity else None
    if passes == 2:
        pruned = -_log_mean_weights(Draws(model, x, samples, keep), x, seed, steps)
    bounds = {k: whole.pop(f"L_{k}") for k in ks}
    told = {"samples": samples, "seed": seed, "threshold": threshold}
    return Metrics(**whole, bounds=bounds, activity=activity, pruned_nll=pruned, **told)


@torch.no_grad()
def mean_bound(model: Model, x: Tensor, bound: Bound, k: int, *, seed: int = 0) -> Tensor:
    """``bound`` of k draws for each image of x [n, pixels] → [n], with the weight of the KL that is the bound's own.
    Raises as ``evaluate`` does."""
    x = model.check_images(x)
    draws = Draws(model, x, k)

    @torch.no_grad()
    def of(block: Tensor, generator: torch.Generator) -> Tensor:
        log_w = [sample.log_weights(bound.kl_weight) for sample in draws.of(block, generator)]
        return bound(torch.cat(log_w))

    values = torch.cat(Steps(None, len(x)).take(blocks(x, seed), of))
    check_finite(values, "the bound")
    return values


@torch.no_grad()
def active_units(
    model: Model, x: Tensor, *, draws: int = ACTIVITY_DRAWS, seed: int = 0, threshold: float = THRESHOLD
) -> tuple[Activity, ...]:
    """Activity of every stochastic layer over images x [n, pixels].

    The first layer's E_q[h|x] is the encoder's own mean. Above it, E_q[h|x] is a mean over ``draws``, whose
    variance holds the draws' own noise as well, E[Var]/draws; so the covariance is taken between the means of two
    independent halves of the draws, which is unbiased. Raises as ``unit_means`` does.
    """
    return tuple(activity_of(*halves, threshold) for halves in unit_means(model, x, draws=draws, seed=seed))


@torch.no_grad()
def unit_means(
    model: Model, x: Tensor, *, draws: int = ACTIVITY_DRAWS, seed: int = 0
) -> tuple[tuple[Tensor, Tensor], ...]:
    """E_q[h|x] of every stochastic layer for images x [n, pixels]: two estimates, [n, latent] each, with independent
    errors; those of the first layer are exact and the same. On the CPU, in float64.

    Raises ValueError for images that the model does not take (``Model.check_images``), and for fewer than 2 images or
    draws, which have no variance; NonFiniteError where a mean is not finite.
    """
    x = model.check_images(x)
    if len(x) < 2 or draws < 2:
        raise ValueError(f"active units need at least 2 images and 2 draws, not {len(x)} and {draws}")
    halves: list[list[tuple[Tensor, Tensor]]] = []
    for block, generator in blocks(x, seed):
        mean = model.first(block)[0]
        layers = [(mean, mean)]
        if len(model.encoder) > 1:
            below, _ = model.propose(block, model.noise(draws, len(block), generator))
            means = [encoder(h)[0] for encoder, h in zip(model.encoder[1:], below, strict=False)]
            layers += [(mean[0::2].mean(0), mean[1::2].mean(0)) for mean in means]  # draws, batch, latent
        halves.append(layers)
    means = tuple(
        tuple(torch.cat(half).cpu().double() for half in zip(*layer, strict=True))
        for layer in zip(*halves, strict=True)
    )
    for number, layer in enumerate(means, 1):
        for half in layer:
            check_finite(half, f"E_q[h|x] in layer {number}")
    return means


def activity_of(first: Tensor, second: Tensor, threshold: float = THRESHOLD) -> Activity:
    """Activity of a layer from two independent estimates of E_q[h|x], [n, latent] each."""
    a, b = first - first.mean(0), second - second.mean(0)
    cross = a.T @ b / (len(a) - 1)
    return Activity((first.mean(0) + second.mean(0)) / 2, (cross + cross.T) / 2, threshold)


def keep_units(activity: tuple[Activity, ...], kept: Sequence[Tensor], device: torch.device | str) -> tuple[Keep, ...]:
    """For ``Model.sample(keep=…)``: only the units ``kept`` ([latent] of bool for each layer) go on. The others are
    held still, the top layer's at their prior mean 0, those below at their mean over images and draws."""
    values = [*(layer.mean for layer in activity[:-1]), torch.zeros_like(activity[-1].mean)]
    return tuple(
        Keep(mask.float().to(device), value.float().to(device)) for mask, value in zip(kept, values, strict=True)
    )


@torch.no_grad()
def log_evidence(
    model: Model, x: Tensor, *, samples: int, seed: int = 0, keep: tuple[Keep, ...] | None = None
) -> Tensor:
    """L_samples for each image of x [n, pixels] → [n], nats: an estimate of log p(x); with ``keep`` of the smaller
    model. The draws of one seed are the same with and without, so differences are paired. Raises as ``evaluate``
    does."""
    x = model.check_images(x)
    values = _log_mean_weights(Draws(model, x, samples, keep), x, seed, Steps(None, len(x)))
    check_finite(values, "log p̂(x)")
    return values


@torch.no_grad()  # known to the calling thread alone
def _measure(draws: Draws, x: Tensor, generator: torch.Generator, ks: Sequence[int]) -> dict:
    """All measures of one block of images."""
    samples = draws.samples
    total, squared = torch.full((2, len(x)), -math.inf, device=x.device)
    log_w_sum, kl_sum = wide(torch.zeros(2, len(x), device=x.device))
    running = {k: RunningBound(k) for k in ks}
    reconstruction = None
    for sample in draws.of(x, generator):
        log_w = sample.log_w
        total = torch.logaddexp(total, log_w.logsumexp(0))
        squared = torch.logaddexp(squared, (2 * log_w).logsumexp(0))
        log_w_sum += wide(log_w).sum(0)
        kl_sum += wide(sample.log_qh - sample.log_ph).sum(0)
        for bound in running.values():
            bound.add(log_w)
        if reconstruction is None:
            reconstruction = _reconstruction(draws.model, x, sample, generator.initial_seed())
    log_mean_w = wide(total) - math.log(samples)
    elbo = log_w_sum / samples
    out = {"nll": -log_mean_w, "elbo": elbo, "reconstruction": reconstruction, "kl_prior": kl_sum / samples}
    # rounding alone could make the two values of one draw differ
    out |= {"kl_posterior": (log_mean_w - elbo).clamp_min(0), "ess": (2 * total - squared).exp()}
    return out | {f"L_{k}": bound.mean() for k, bound in running.items()}


def _reconstruction(model: Model, x: Tensor, sample: Sample, seed: int) -> Tensor:
    """−log p(x|h) of the first draw; with more layers, h₁ comes down through the decoder from h_L."""
    if not model.decoder:
        return -sample.log_px[0]
    generator = torch.Generator(x.device).manual_seed(seed + 1)
    return -model.log_likelihood(x, model.descend(sample.h[-1][:1], generator), checked=True)[0]


def _log_mean_weights(draws: Draws, x: Tensor, seed: int, steps: "Steps") -> Tensor:
    """log of the mean weight of each image's draws, [n]."""

    @torch.no_grad()
    def of(block: Tensor, generator: torch.Generator) -> Tensor:
        total = torch.full((len(block),), -math.inf, device=block.device)
        for sample in draws.of(block, generator):
            total = torch.logaddexp(total, sample.log_w.logsumexp(0))
        return wide(total) - math.log(draws.samples)

    return torch.cat(steps.take(blocks(x, seed), of))


class RunningBound:
    """Mean of L_k over the disjoint groups of k in a stream of log-weights, however the stream is cut."""

    def __init__(self, k: int):
        self.k, self.sum, self.groups = k, 0.0, 0
        self.open, self.count = None, 0  # logsumexp and size of the group being filled

    def add(self, log_w: Tensor) -> None:
        """Take the next draws, log_w [any number, batch]."""
        if self.count:
            room = self.k - self.count
            self._fill(log_w[:room])
            log_w = log_w[room:]
        whole = len(log_w) // self.k
        if whole:
            groups = log_w[: whole * self.k].view(whole, self.k, -1).logsumexp(1)
            self._close(wide(groups).sum(0), whole)
        self._fill(log_w[whole * self.k :])

    def _fill(self, log_w: Tensor) -> None:
        if not len(log_w):
            return
        part = log_w.logsumexp(0)
        self.open = part if self.open is None else torch.logaddexp(self.open, part)
        self.count += len(log_w)
        if self.count == self.k:
            self._close(wide(self.open), 1)
            self.open, self.count = None, 0

    def _close(self, total: Tensor, groups: int) -> None:
        self.sum = self.sum + total
        self.groups += groups

    def mean(self) -> Tensor:
        """L_k [batch], averaged over the whole groups."""
        return self.sum / self.groups - math.log(self.k)


class Steps:
    """Counts images towards a progress callback."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.done, self.total = progress, 0, total

    def take(self, blocks: list[tuple[Tensor, torch.Generator]], function: Callable[..., Any]) -> list[Any]:
        """``function(images, generator)`` of every block, on a CPU on all threads."""
        malloc.keep_freed()
        run = threads.parallel_map if blocks[0][0].device.type == "cpu" else threads.serial_map
        return run(lambda block: function(*block), blocks, lambda block: self.advance(len(block[0])))

    def advance(self, images: int) -> None:
        self.done += images
        if self.progress:
            self.progress(self.done, self.total)
