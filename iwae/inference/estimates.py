"""Any bound on one image, and one step of training on it, from the cached draw of its posterior."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from iwae.bounds import Bound
from iwae.evaluation.stats import mean_se
from iwae.inference.posterior import Posterior


@dataclass(frozen=True)
class Estimate:
    """A bound on log p(x) of one image, nats."""

    bound: Bound
    k: int  # draws in a group
    groups: int  # disjoint groups of k draws
    value: float  # mean over the groups
    error: float | None  # its standard error over the groups; None where there is but one


def estimate(drawn: Posterior, bound: Bound, k: int) -> Estimate:
    """The expectation of the bound of k draws: its mean over disjoint groups of k of the cached draws.

    Raises ValueError for a k that is not 1 … samples, or that the bound does not take.
    """
    groups = _groups(drawn.log_weights(bound.kl_weight), k)
    return Estimate(bound, k, groups.shape[1], *mean_se(bound(groups)))


@dataclass(frozen=True)
class Step:
    """k draws of one image as a training step sees them; the gradient is Σᵢ gradientᵢ ∇log wᵢ. All on the CPU."""

    draws: Tensor  # [k], their places in the posterior's draw
    log_w: Tensor  # [k], nats
    normalised: Tensor  # [k], w̃ᵢ = wᵢ/Σw, what IWAE weighs them by
    gradient: Tensor  # [k], ∂bound/∂log wᵢ
    bound: float  # of these k draws, nats

    @property
    def effective(self) -> float:
        """1/Σ gradientᵢ²: how many equally weighted draws share the gradient, from 1 to k."""
        return 1 / self.gradient.square().sum().item()


def step(drawn: Posterior, bound: Bound, k: int, number: int = 0) -> Step:
    """Group ``number`` (from 0) of k draws under the bound. Raises ValueError where there is no such group."""
    groups = _groups(drawn.log_weights(bound.kl_weight), k)
    if not 0 <= number < groups.shape[1]:
        raise ValueError(f"{drawn.samples} draws make {groups.shape[1]} groups of {k}; there is no group {number}")
    weighted = groups[:, [number]]
    log_w = _groups(drawn.log_w, k)[:, number]
    draws = log_w.new_tensor(range(k)).long() + number * k
    return Step(draws, log_w, log_w.softmax(0), bound.weights(weighted)[:, 0], bound(weighted).item())


def _groups(log_w: Tensor, k: int) -> Tensor:
    """Log-weights [samples] in disjoint groups of k draws, [k, groups]: each group as an image of a batch."""
    if not 1 <= k <= len(log_w):
        raise ValueError(f"k must lie between 1 and the {len(log_w)} samples, not {k}")
    return log_w[: len(log_w) // k * k].double().view(-1, k).T


@dataclass(frozen=True)
class Histogram:
    """Where the log-weights of one image lie, in bins that several models share; all nats."""

    centres: np.ndarray  # [bins]
    draws: np.ndarray  # [bins], share of the draws; the first bin has all that lies below it, too
    weight: np.ndarray  # [bins], share of the importance weight


def histograms(drawn: Sequence[Posterior], bins: int = 60) -> list[Histogram]:
    """Histograms of log w in the same bins, from the lowest 0.5% quantile to the highest log-weight of all."""
    low = min(np.quantile(part.log_w.numpy(), 0.005) for part in drawn)
    high = max(part.log_w.max().item() for part in drawn)
    edges = np.linspace(low, max(high, low + 1e-3), bins + 1)  # equal weights, of an exact q, have a width too
    out = []
    for part in drawn:
        log_w, weights = part.log_w.numpy().clip(edges[0], edges[-1]), part.weights.numpy()
        counts, sums = (np.histogram(log_w, edges, weights=given)[0] for given in (None, weights))
        out.append(Histogram((edges[1:] + edges[:-1]) / 2, counts / len(log_w), sums))
    return out
