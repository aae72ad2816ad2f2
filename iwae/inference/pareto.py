"""Pareto k̂: how heavy the upper tail of the importance weights is, and so how far their mean can be trusted.

Weights whose tail is a generalized Pareto distribution of shape k have ⌈1/k⌉ − 1 finite moments: from k = 1/2 on no
variance, from k = 1 on no mean. Vehtari, Simpson, Gelman, Yao & Gabry 2024, "Pareto smoothed importance sampling"; the
numbers are those of R's package ``loo``.
"""

import math

import numpy as np

PRIOR_WEIGHT, PRIOR_SHAPE = 10, 0.5  # loo's weak prior on k: ten observations at 1/2
FEWEST = 5  # weights of a tail that can be fitted
FEWEST_SAMPLES = FEWEST * (FEWEST - 1) + 1  # whose tail is that long
TRUSTED = 0.5  # k̂ up to which the weights have a variance, so that their own spread tells their mean's error
READINGS = (  # upper end of k̂, in a word, what it means
    (TRUSTED, "good", "the weights have a finite variance, so their mean can be trusted"),
    (0.7, "ok", "the variance may be infinite, but the mean still settles at a practical pace"),
    (1.0, "bad", "the mean settles too slowly: a few lucky draws decide, and the standard error is too small"),
    (math.inf, "very bad", "the weights may not even have a mean: no number of draws of this q will do"),
)


def fit(excess: np.ndarray) -> tuple[float, float]:
    """(shape k, scale σ) of the generalized Pareto distribution behind ``excess`` > 0 over a threshold.

    Zhang & Stephens 2009, "A new and efficient estimation method for the generalized Pareto distribution": the mean of
    θ = −k/σ under its profile likelihood, on a grid of quantiles. Their k has the other sign. (inf, nan) where the
    excesses span more than floating point can tell.
    """
    x = np.sort(np.asarray(excess, dtype=float))
    count = len(x)
    if count < FEWEST:
        raise ValueError(f"a tail needs at least {FEWEST} excesses, not {count}")
    points = 30 + int(math.sqrt(count))
    quartile = x[int(count / 4 + 0.5) - 1]
    if quartile <= 0 or not np.isfinite(x[-1] / quartile):
        return math.inf, math.nan
    theta = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    shape = np.log1p(-theta[:, None] * x).mean(1)
    likelihood = count * (np.log(-theta / shape) - shape - 1)
    weight = np.exp(likelihood - likelihood.max())
    best = (theta * weight).sum() / weight.sum()
    k = np.log1p(-best * x).mean()
    return (float(k), float(-k / best)) if np.isfinite(k) else (math.inf, math.nan)


def tail_length(samples: int) -> int:
    """M = min(S/5, 3√S), rounded up: how many of S weights make the tail."""
    return math.ceil(min(samples / 5, 3 * math.sqrt(samples)))


def k_hat(log_w: np.ndarray) -> float:
    """k̂ of log-weights [samples]; a constant added to all of them changes nothing.

    −inf where the weights of the tail are all the same, nothing being heavy there. Raises ValueError for fewer than 21
    samples, whose tail is too short.
    """
    ordered = np.sort(np.asarray(log_w, dtype=float))
    if len(ordered) < FEWEST_SAMPLES:
        raise ValueError(f"k̂ needs at least {FEWEST_SAMPLES} samples, not {len(ordered)}")
    return k_hat_of_largest(ordered[-tail_length(len(ordered)) - 1 :])


def k_hat_of_largest(log_w: np.ndarray) -> float:
    """``k_hat`` of S samples, from the largest ``tail_length(S)`` + 1 of their log-weights, in ascending order."""
    ordered = np.asarray(log_w, dtype=float)
    ordered = ordered - ordered[-1]
    tail, below, count = ordered[1:], ordered[0], len(ordered) - 1
    if tail[-1] - tail[0] < 100 * np.finfo(float).eps:
        return -math.inf
    shape, _ = fit(np.exp(tail) - np.exp(below))
    return (count * shape + PRIOR_WEIGHT * PRIOR_SHAPE) / (count + PRIOR_WEIGHT)


def reading(k: float) -> tuple[str, str]:
    """(a word for k̂, what it means)."""
    return next((word, meaning) for end, word, meaning in READINGS if k < end or end == math.inf)
