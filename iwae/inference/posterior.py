"""One image: its posterior under a model, and every bound on it, from one cached draw of q(h|x)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwae.bounds import weigh_kl
from iwae.evaluation.sampling import rows_at_once
from iwae.evaluation.stats import decimal, plus_minus
from iwae.inference import pareto
from iwae.inference.inference_data import inference_data
from iwae.kernels.finite import NonFiniteError, check_finite
from iwae.model import LatentModel
from iwae.system import reprs

CURVE_ORDERS = 20  # random orders of the draws that an L_k curve is averaged over, at most
BLOCK = 500  # draws that the noise is made for at once: what each draw gets depends on it
AT_ONCE = 5000  # draws that go through the network together, at most
SMALLEST_SUM = 1e-290  # of weights relative to the largest, that a double still holds with all its digits


@dataclass(frozen=True)
class Posterior:
    """``samples`` draws from q(h|x) of one image x, on the CPU; nats."""

    x: Tensor  # [pixels]
    mean: Tensor  # [latent[0]], of q(h₁|x)
    std: Tensor  # [latent[0]], of q(h₁|x)
    h: tuple[Tensor, ...]  # h[l]: [samples, latent[l]]
    log_px: Tensor  # [samples]
    log_w: Tensor  # [samples]
    seed: int

    def __repr__(self) -> str:
        estimate = f"log p̂(x) {plus_minus(self.log_p, self.log_p_se)} nats, ELBO {decimal(self.elbo)} nats"
        return f"Posterior({self.samples:,} draws, seed {self.seed}: {estimate}, effective sample size {self.ess:.1f})"

    @property
    def samples(self) -> int:
        return len(self.log_w)

    def log_weights(self, kl_weight: float) -> Tensor:
        """log p(x|h) + kl_weight·(log p(h) − log q(h|x)), [samples]: ``log_w`` for a weight of 1."""
        return weigh_kl(self.log_w, self.log_px, kl_weight)

    @property
    def weights(self) -> Tensor:
        """Normalised importance weights w̃, [samples], summing to 1."""
        return self.log_w.double().softmax(0)

    @property
    def ess(self) -> float:
        """Effective sample size 1/Σw̃², from 1 to ``samples``."""
        return 1 / self.weights.square().sum().item()

    @property
    def log_p(self) -> float:
        """log p̂(x) = L_samples, nats."""
        return self.first_log_p(self.samples)

    def first_log_p(self, count: int) -> float:
        """log p̂(x) = L_count of the first ``count`` draws alone, nats: what fewer of them would have said."""
        return self.log_w[:count].double().logsumexp(0).item() - math.log(count)

    @property
    def log_p_se(self) -> float | None:
        """Standard error of ``log_p`` from the spread of the weights: sd(w)/(mean(w)·√samples), the delta method.

        None where k̂ is above 0.5, or cannot be known: the weights may have no variance there, the spread of those that
        were drawn says nothing of the others, and ``log_p`` is a lower bound with no error. ``inference.ais`` has one.
        """
        if self.samples < pareto.FEWEST_SAMPLES or self.k_hat > pareto.TRUSTED:
            return None
        return math.sqrt(max(1 / self.ess - 1 / self.samples, 0.0))

    @property
    def elbo(self) -> float:
        """Mean of log w, nats."""
        return self.log_w.double().mean().item()

    def carrying(self, share: float = 0.9) -> int:
        """How few of the draws carry ``share`` of the weight."""
        heaviest = self.weights.sort(descending=True).values.cumsum(0)
        return int((heaviest < share).sum()) + 1

    @property
    def k_hat(self) -> float:
        """Pareto k̂ of the weights, which needs at least 21 samples (iwae/inference/pareto.py)."""
        return pareto.k_hat(self.log_w.numpy())

    @property
    def kl_units(self) -> Tensor:
        """D_KL(q(h_u|x) ‖ N(0, 1)) of each unit of the first layer, [latent[0]], nats."""
        return (self.mean**2 + self.std**2 - 1) / 2 - self.std.log()

    def resample(self, count: int, seed: int = 0) -> Tensor:
        """Indices [count] of draws chosen by weight: sampling-importance-resampling from the true posterior.

        Rubin 1987. The heavier a draw the more often it is there; what no draw has met cannot be.
        """
        generator = torch.Generator().manual_seed(seed)
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)

    def to_inference_data(
        self, model: LatentModel | None = None, *, draws: int | None = None, weighted: bool = False, seed: int = 0
    ) -> Any:
        """For ArviZ: its ``InferenceData``, or from ArviZ 1 on (Python 3.12) an ``xarray.DataTree``, of one chain.

        Its groups: ``posterior`` with ``h1`` [chain, draw, h1_unit] and so on for every layer, ``log_likelihood`` with
        log p(x|h) of the same draws, ``sample_stats``, ``observed_data``, and with ``model`` as many draws of the
        ``prior``.

        Args:
            draws: how many, chosen by weight (``resample``, from ``seed``): as ArviZ takes draws of a posterior, all
                counting the same. By default ``samples``.
            weighted: the draws of q in their order instead, with the logarithms of their normalised weights as
                ``sample_stats.log_weight``. ArviZ's own summaries do not use these.

        Raises MissingError without ArviZ, ValueError for ``draws`` below 1 or with ``weighted``.
        """
        return inference_data(self, model, draws, weighted, seed)

    def curve(self, ks: np.ndarray, seed: int = 0) -> np.ndarray:
        """L_k of this image for each k of ``ks`` (1 … samples): the mean over disjoint groups of k draws, and over
        up to 20 random orders of the draws, each group an unbiased estimate. At k = 1 and k = samples all orders agree.
        """
        ks = np.asarray(ks)
        if ks.min() < 1 or ks.max() > self.samples:
            raise ValueError(f"k must lie between 1 and the {self.samples} samples, not {ks.min()}…{ks.max()}")
        log_w, random = self.log_w.double().numpy(), np.random.default_rng(seed)
        orders = np.empty((len(log_w), CURVE_ORDERS))  # side by side: all are summed at once
        for column in orders.T:
            column[:] = random.permutation(log_w)
        orders, largest, mean = torch.from_numpy(orders), log_w.max(), np.empty(len(ks))
        weights = (orders - largest).exp_()  # once for all k
        for place, k in enumerate(ks):
            # groups of k draws differ little between more than k orders
            log_groups, groups = (each[: len(log_w) // k * k, :k].unflatten(0, (-1, k)) for each in (orders, weights))
            sums = groups.sum(1)
            bounds = sums.log() + largest
            lost = sums < SMALLEST_SUM
            if lost.any():
                bounds[lost] = log_groups.movedim(1, 2)[lost].logsumexp(1)
            mean[place] = bounds.mean()
        return mean - np.log(ks)


@torch.no_grad()
def posterior(model: LatentModel, x: Tensor, *, samples: int = 5000, seed: int = 0) -> Posterior:
    """Draw ``samples`` times from q(h|x) of one image x [pixels]. Repeatable from ``seed``;
    fewer samples are the first of more. Raises ValueError for an image that the model does not take
    (``Model.check_images``) or fewer than 1 sample, NonFiniteError where a log-weight or the logarithm of a standard
    deviation is not finite."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    x = model.check_images(x, count=1)
    mean, log_std = encoded = model.encode_first(x)
    noise = [layer.split(rows_at_once(model.config, AT_ONCE)) for layer in standard_noise(model, samples, seed)]
    parts = [model.sample(x, noise=eps, encoded=encoded, checked=True) for eps in zip(*noise, strict=True)]
    h = tuple(torch.cat(layer)[:, 0].cpu() for layer in zip(*(part.h for part in parts), strict=True))
    log_px, log_w = (torch.cat([getattr(part, name) for part in parts])[:, 0].cpu() for name in ("log_px", "log_w"))
    if not log_w.isfinite().all():
        raise NonFiniteError(
            f"the log-weights of {int((~log_w.isfinite()).sum()):,} of {samples:,} draws are not finite numbers: the "
            "weights of this model are so large that float32 cannot hold what follows from them"
        )
    std = log_std.exp()
    check_finite(std.log(), "the log standard deviation of q(h₁|x)")  # also where it is so small that it is 0
    return Posterior(x[0].cpu(), mean[0].cpu(), std[0].cpu(), h, log_px, log_w, seed)


def standard_noise(model: LatentModel, samples: int, seed: int) -> tuple[Tensor, ...]:
    """The standard normal draws [samples, 1, latent[l]] of each layer that ``posterior`` of this seed turns into h."""
    generator = torch.Generator(model.device).manual_seed(seed)
    blocks = [model.noise(BLOCK, 1, generator) for _ in range(0, samples, BLOCK)]
    return tuple(torch.cat(layer)[:samples] for layer in zip(*blocks, strict=True))


@dataclass(frozen=True)
class Reconstructions:
    """One image as the model sees it, probabilities [pixels] each."""

    from_mean: Tensor  # decoded from the mean of q
    average: Tensor  # plain average of the decoded draws, E_q[x|h]
    weighted: Tensor  # their average by weight, which estimates the mean of the true posterior's pictures
    spread: Tensor  # standard deviation of each decoded pixel by weight, in [0, 1/2]: how undecided the posterior is

    __repr__ = reprs.one_line


@torch.no_grad()
def reconstruct(model: LatentModel, drawn: Posterior) -> Reconstructions:
    """The three reconstructions of the image behind ``drawn``, and the spread of the last."""
    h1, weights = drawn.h[0].to(model.device), drawn.weights.float().to(model.device)
    shares = torch.stack([torch.full_like(weights, 1 / len(h1)), weights])  # both averages in one product
    means, squared = torch.zeros(2, model.config.pixels, device=model.device), 0.0
    together = rows_at_once(model.config, BLOCK)
    for rows, part in zip(h1.split(together), shares.split(together, 1), strict=True):
        pictures = model.decode(rows)
        means = means + part @ pictures
        squared = squared + part[1] @ pictures.square_()
    average, weighted = means
    from_mean = model.decode(drawn.mean.to(model.device))
    spread = (squared - weighted.square()).clamp_min(0).sqrt()
    return Reconstructions(from_mean.cpu(), average.cpu(), weighted.cpu(), spread.cpu())
