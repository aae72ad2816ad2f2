"""Bounds on log p(x) as functions of the log-weights, in nats per image.

    log_w[k, batch] = log p(x, h) − log q(h|x),   h ~ q(h|x),   k draws for each image

Every bound maps ``log_w`` to one value per image, ``[batch]``, and adding a constant to ``log_w`` adds it to the
bound. Expectations below are over the k independent draws; "lower bound" means E[bound] ≤ log p(x).
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


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
    return (ordered[(k - 1) // 2] + ordered[k // 2]) / 2


def l_alpha(log_w: Tensor, *, alpha: float) -> Tensor:
    """L_α = 1/(1−α) log (1/k) Σ wᵢ^(1−α), the variational Rényi bound. Li & Turner 2016, eq. 14.

    α → 1 is VAE, α = 0 is IWAE; it is the power mean with p = 1 − α. Lower bound for α ≥ 0.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"L_alpha: alpha must be a finite number, not {alpha}")
    return power_mean(log_w, p=1 - alpha)


def ciwae(log_w: Tensor, *, beta: float) -> Tensor:
    """β·VAE + (1−β)·IWAE. Lower bound for β in [0, 1]. Rainforth et al. 2018, eq. 10."""
    if not 0 <= beta <= 1:
        raise ValueError(f"CIWAE: beta must lie in [0, 1], not {beta}")
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


def _no_curvature(log_w: Tensor) -> Tensor:
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
class Objective:
    """One row of the table: a bound, its name for people, and the diagonal of its second derivative (or None)."""

    title: str
    function: Callable[..., Tensor]
    curvature: Callable[..., Tensor] | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the bound's own keyword-only parameters, all required."""
        kinds = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in kinds if p.kind is p.KEYWORD_ONLY)


OBJECTIVES = {
    "vae": Objective("VAE", vae, _no_curvature),
    "iwae": Objective("IWAE", iwae, _power_curvature),
    "power-mean": Objective("Power mean", power_mean, _power_curvature),
    "median": Objective("Median", median, None),  # the median's weights jump: no second derivative
    "l-alpha": Objective("L_alpha", l_alpha, _alpha_curvature),
    "ciwae": Objective("CIWAE", ciwae, _ciwae_curvature),
    "miwae": Objective("MIWAE", miwae, _miwae_curvature),
}


@dataclass(frozen=True)
class Bound:
    """A bound with its parameters filled in: ``Bound("power-mean", {"p": 2})(log_w)`` → [batch], nats per image.

    Raises ValueError, naming what exists, for an unknown objective or a parameter it does not take or lacks.
    """

    name: str
    parameters: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.name!r}; there are {', '.join(OBJECTIVES)}")
        takes = OBJECTIVES[self.name].parameters
        if unknown := sorted(set(self.parameters) - set(takes)):
            raise ValueError(f"objective {self.name!r} takes {_list(takes)}, not {', '.join(unknown)}")
        if missing := [name for name in takes if name not in self.parameters]:
            raise ValueError(f"objective {self.name!r} needs {', '.join(missing)}")
        self(torch.zeros(max(int(self.draws or 1), 1), 1))  # lets the function check its values

    @property
    def draws(self) -> int | None:
        """The number of draws k that the parameters fix (MIWAE), or None when any k will do."""
        return self.parameters["k1"] * self.parameters["k2"] if self.name == "miwae" else None

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
