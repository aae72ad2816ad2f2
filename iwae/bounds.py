"""Bounds on log p(x) as functions of the log-weights, in nats per image.

    log_w[k, batch] = log p(x, h) − log q(h|x),   h ~ q(h|x),   k draws for each image

Every bound maps ``log_w`` to one value per image, ``[batch]``, and adding a constant to ``log_w`` adds it to the
bound. Expectations below are over the k independent draws; "lower bound" means E[bound] ≤ log p(x).

The KL part of a log-weight, log p(h) − log q(h|x), can be weighted (``weigh_kl``). A bound is then the same function of
the weighted log-weights: ``l-alpha`` is such an objective, and so is any objective during a KL warm-up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def weigh_kl(log_w: Tensor, log_px: Tensor, weight: float | Tensor) -> Tensor:
    """log p(x|h) + weight·(log p(h) − log q(h|x)): log-weights [k, batch] whose KL part counts ``weight`` times.

    ``log_px`` is log p(x|h) of the same draws. A weight of 1 gives ``log_w`` itself. Higgins et al. 2017.
    """
    if not isinstance(weight, Tensor) and weight == 1:
        return log_w
    return log_px + weight * (log_w - log_px)


def vae(log_w: Tensor) -> Tensor:
    """ELBO: (1/k) Σ log wᵢ. Lower bound; its expectation is the same for every k. Kingma & Welling 2014."""
    return log_w.mean(0)


def iwae(log_w: Tensor) -> Tensor:
    """L_k = log (1/k) Σ wᵢ. Lower bound, tighter as k grows. Burda, Grosse & Salakhutdinov 2016, eq. 8."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def power_mean(log_w: Tensor, *, p: float) -> Tensor:
    """L_p = (1/p) log (1/k) Σ wᵢᵖ, the log of the power mean. Arnal, Lee & Pezzotti 2021.

    p = 1 is IWAE and p → 0 is VAE. Lower bound for p ≤ 1 (Jensen); for p > 1 its expectation may exceed log p(x).
    """
    if not math.isfinite(p):
        raise ValueError(f"power mean: p must be a finite number, not {p}")
    if abs(p) < 1e-4:  # the limit: at such p, L_p in float32 is all rounding
        return vae(log_w)
    return iwae(p * log_w) / p


def median(log_w: Tensor) -> Tensor:
    """Median of log wᵢ (mean of the two middle ones for even k). Arnal, Lee & Pezzotti 2021.

    Not a lower bound: at most log p(x) + log 2 for the median of the distribution of w (Markov's inequality).
    """
    ordered, k = log_w.sort(0).values, len(log_w)
    middle = (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
    return torch.where(ordered[-1].isnan(), ordered[-1], middle)  # NaN is sorted last, and must not be passed over


def l_alpha(log_w: Tensor, *, alpha: float) -> Tensor:
    """L_α = E_q[log p(x|h)] − α·D_KL(q(h|x) ‖ p(h)). Arnal, Lee & Pezzotti 2021; β-VAE with β = α, Higgins et al. 2017.

    It is the VAE bound of weighted log-weights: ``log_w`` here is ``weigh_kl(log_w, log_px, alpha)``. α = 1 is VAE,
    α = 0 a plain autoencoder. Lower bound for α ≥ 1; below 1 it may exceed log p(x).
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"L_alpha: alpha must be a finite number of at least 0, not {alpha}")
    return vae(log_w)


def renyi(log_w: Tensor, *, alpha: float) -> Tensor:
    """1/(1−α) log (1/k) Σ wᵢ^(1−α), the variational Rényi bound. Li & Turner 2016, eq. 14.

    α → 1 is VAE, α = 0 is IWAE; it is the power mean with p = 1 − α. Lower bound for α ≥ 0.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"Rényi: alpha must be a finite number, not {alpha}")
    return power_mean(log_w, p=1 - alpha)


def ciwae(log_w: Tensor, *, beta: float) -> Tensor:
    """β·VAE + (1−β)·IWAE. Lower bound for β in [0, 1]. Rainforth et al. 2018, eq. 10."""
    if not 0 <= beta <= 1:
        raise ValueError(f"CIWAE: beta must lie in [0, 1], not {beta}")
    if beta in (0, 1):  # 0·∞ is NaN
        return vae(log_w) if beta else iwae(log_w)
    return beta * vae(log_w) + (1 - beta) * iwae(log_w)


def miwae(log_w: Tensor, *, k1: int, k2: int) -> Tensor:
    """Mean of k2 independent IWAE bounds of k1 draws each; k = k1·k2. Lower bound. Rainforth et al. 2018, eq. 9.

    k1 = 1 is VAE, k2 = 1 is IWAE.
    """
    return iwae(_groups(log_w, k1, k2)).mean(0)


def _groups(log_w: Tensor, k1: int, k2: int) -> Tensor:
    if not (isinstance(k1, int) and isinstance(k2, int) and k1 > 0 and k2 > 0):
        raise ValueError(f"MIWAE: k1 and k2 must be whole numbers of at least 1, not {k1} and {k2}")
    if k1 * k2 != len(log_w):
        raise ValueError(f"MIWAE: k1·k2 must equal k = {len(log_w)}, not {k1}·{k2} = {k1 * k2}")
    return log_w.reshape(k1, k2, -1)  # draw, group, batch


# ∂²bound/∂(log wᵢ)², what the doubly reparameterized gradient takes off each weight (gradients.py).


def _no_curvature(log_w: Tensor, **parameters: float) -> Tensor:
    return torch.zeros_like(log_w)


def _power_curvature(log_w: Tensor, *, p: float = 1.0) -> Tensor:
    share = (p * log_w).softmax(0)
    return p * share * (1 - share)


def _alpha_curvature(log_w: Tensor, *, alpha: float) -> Tensor:
    return _power_curvature(log_w, p=1 - alpha)


def _ciwae_curvature(log_w: Tensor, *, beta: float) -> Tensor:
    return (1 - beta) * _power_curvature(log_w)


def _miwae_curvature(log_w: Tensor, *, k1: int, k2: int) -> Tensor:
    return _power_curvature(_groups(log_w, k1, k2)).reshape(log_w.shape) / k2


@dataclass(frozen=True)
class Parameter:
    """What a bound takes beside the log-weights: its label, the values that it may have, and one to begin with."""

    label: str
    low: float
    high: float
    default: float
    whole: bool = False

    def checked(self, title: str, value: Any) -> float:
        """The value as a plain number; ValueError for one that is no number or out of range. ``title`` names it."""
        kind, words = (Integral, "a whole number") if self.whole else (Real, "a finite number")
        if not isinstance(value, kind) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ValueError(f"{title} must be {words} from {self.low:,} to {self.high:,}, not {value!r}")
        return int(value) if isinstance(value, Integral) else float(value)


@dataclass(frozen=True)
class Objective:
    """One row of the table: a bound, its name for people, the diagonal of its second derivative (or None), and its
    parameters by name."""

    title: str
    function: Callable[..., Tensor]
    curvature: Callable[..., Tensor] | None
    parameters: dict[str, Parameter] = field(default_factory=dict)
    kl_weight: str | None = None  # the parameter that weighs the KL part of the log-weights


MANY = 100_000  # a larger exponent makes no difference
GROUPS = {
    "k1": Parameter("k₁, draws in a group", 1, 1_000_000, 5, whole=True),
    "k2": Parameter("k₂, number of groups", 1, 1_000_000, 4, whole=True),
}

OBJECTIVES = {
    "vae": Objective("VAE", vae, _no_curvature),
    "iwae": Objective("IWAE", iwae, _power_curvature),
    "power-mean": Objective(
        "Power mean", power_mean, _power_curvature, {"p": Parameter("Exponent p", -MANY, MANY, 2.0)}
    ),
    "median": Objective("Median", median, None),  # the median's weights jump: no second derivative
    "l-alpha": Objective(
        "L_alpha", l_alpha, _no_curvature, {"alpha": Parameter("α, weight of the KL", 0, MANY, 0.5)}, kl_weight="alpha"
    ),
    "renyi": Objective("Rényi", renyi, _alpha_curvature, {"alpha": Parameter("α", -MANY, MANY, 0.5)}),
    "ciwae": Objective("CIWAE", ciwae, _ciwae_curvature, {"beta": Parameter("β, share of the VAE bound", 0, 1, 0.25)}),
    "miwae": Objective("MIWAE", miwae, _miwae_curvature, GROUPS),
}


@dataclass(frozen=True)
class Bound:
    """A bound with its parameters filled in: ``Bound("power-mean", {"p": 2})(log_w)`` → [batch], nats per image.

    Where ``kl_weight`` is not 1, ``log_w`` are log-weights with that weight (``weigh_kl``).
    Raises ValueError, naming what is allowed, for an unknown objective, a parameter that it does not take or lacks, or
    a value that is out of range.
    """

    name: str
    parameters: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.name!r}; there are {', '.join(OBJECTIVES)}")
        row = OBJECTIVES[self.name]
        if not isinstance(self.parameters, dict):
            raise ValueError(f"parameters must be a dict of names and numbers, not {self.parameters!r}")
        if unknown := sorted(map(str, set(self.parameters) - set(row.parameters))):
            raise ValueError(f"objective {self.name!r} takes {_list(tuple(row.parameters))}, not {', '.join(unknown)}")
        if missing := [name for name in row.parameters if name not in self.parameters]:
            raise ValueError(f"objective {self.name!r} needs {', '.join(missing)}")
        checked = {
            name: parameter.checked(f"{row.title}: {name}", self.parameters[name])
            for name, parameter in row.parameters.items()
        }
        object.__setattr__(self, "parameters", checked)

    @property
    def draws(self) -> int | None:
        """The number of draws k that the parameters fix (MIWAE), or None when any k will do."""
        return self.parameters["k1"] * self.parameters["k2"] if self.name == "miwae" else None

    @property
    def kl_weight(self) -> float:
        """How often the KL part of the log-weights counts: α of ``l-alpha``, and 1 for the others."""
        name = OBJECTIVES[self.name].kl_weight
        return float(self.parameters[name]) if name else 1.0

    @property
    def equal_weights(self) -> bool:
        """Whether ``weights`` are 1/k whatever the log-weights, as for the ELBO: no draw is preferred to another."""
        if self.name == "miwae":
            return self.parameters["k1"] == 1
        second = self.curvature(torch.zeros(2, 1))
        return second is not None and not second.any()

    @property
    def title(self) -> str:
        """The objective's name for people, with its parameters: ``CIWAE β = 0.25``."""
        letters = {"beta": "β", "alpha": "α"}
        values = ", ".join(f"{letters.get(name, name)} = {value:g}" for name, value in self.parameters.items())
        return f"{OBJECTIVES[self.name].title} {values}".strip()

    def __call__(self, log_w: Tensor) -> Tensor:
        return OBJECTIVES[self.name].function(log_w, **self.parameters)

    def weights(self, log_w: Tensor) -> Tensor:
        """∂bound/∂log w, [k, batch]: non-negative, summing to 1 over the draws (for IWAE the normalised weights)."""
        if len(log_w) == 1:  # of every bound: a constant added to log_w is added to it
            return torch.ones_like(log_w)
        with torch.enable_grad():
            given = log_w.detach().requires_grad_()
            return torch.autograd.grad(self(given).sum(), given)[0]

    def curvature(self, log_w: Tensor) -> Tensor | None:
        """∂²bound/∂(log wᵢ)², [k, batch], or None where it does not exist."""
        second = OBJECTIVES[self.name].curvature
        return None if second is None else second(log_w.detach(), **self.parameters)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "no parameters"
