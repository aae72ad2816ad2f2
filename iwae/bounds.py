"""Bounds on log p(x) as functions of the log-weights, in nats per image.

    log_w[k, batch] = log p(x, h) − log q(h|x),   h ~ q(h|x),   k draws for each image

Every bound maps ``log_w`` to one value per image, ``[batch]``, and adding a constant to ``log_w`` adds it to the
bound. Expectations below are over the k independent draws; "lower bound" means E[bound] ≤ log p(x).

``OBJECTIVES`` has a row for each bound, with all that the commands, forms and pages say of it or ask for.

The KL part of a log-weight, log p(h) − log q(h|x), can be weighted (``weigh_kl``). A bound is then the same function of
the weighted log-weights: ``l-alpha`` is such an objective, and so is any objective during a KL warm-up.
"""

import math
from collections.abc import Callable, Sequence
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
    """ELBO: (1/k) Σ log wᵢ. Lower bound; its expectation is the same for every k."""
    return log_w.mean(0)


def iwae(log_w: Tensor) -> Tensor:
    """L_k = log (1/k) Σ wᵢ. Lower bound, tighter as k grows."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def power_mean(log_w: Tensor, *, p: float) -> Tensor:
    """L_p = (1/p) log (1/k) Σ wᵢᵖ, the log of the power mean.

    p = 1 is IWAE and p → 0 is VAE. Lower bound for p ≤ 1 (Jensen); for p > 1 its expectation may exceed log p(x).
    """
    if not math.isfinite(p):
        raise ValueError(f"power mean: p must be a finite number, not {p}")
    if abs(p) < 1e-4:  # the limit: at such p, L_p in float32 is all rounding
        return vae(log_w)
    return iwae(p * log_w) / p


def median(log_w: Tensor) -> Tensor:
    """Median of log wᵢ (mean of the two middle ones for even k).

    Not a lower bound: at most log p(x) + log 2 for the median of the distribution of w (Markov's inequality).
    """
    ordered, k = log_w.sort(0).values, len(log_w)
    middle = (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
    return torch.where(ordered[-1].isnan(), ordered[-1], middle)  # NaN is sorted last, and must not be passed over


def l_alpha(log_w: Tensor, *, alpha: float) -> Tensor:
    """L_α = E_q[log p(x|h)] − α·D_KL(q(h|x) ‖ p(h)).

    It is the VAE bound of weighted log-weights: ``log_w`` here is ``weigh_kl(log_w, log_px, alpha)``. α = 1 is VAE,
    α = 0 a plain autoencoder. Lower bound for α ≥ 1; below 1 it may exceed log p(x).
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"L_alpha: alpha must be a finite number of at least 0, not {alpha}")
    return vae(log_w)


def renyi(log_w: Tensor, *, alpha: float) -> Tensor:
    """1/(1−α) log (1/k) Σ wᵢ^(1−α), the variational Rényi bound.

    α → 1 is VAE, α = 0 is IWAE; it is the power mean with p = 1 − α. Lower bound for α ≥ 0.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"Rényi: alpha must be a finite number, not {alpha}")
    return power_mean(log_w, p=1 - alpha)


def ciwae(log_w: Tensor, *, beta: float) -> Tensor:
    """β·VAE + (1−β)·IWAE. Lower bound for β in [0, 1]."""
    if not 0 <= beta <= 1:
        raise ValueError(f"CIWAE: beta must lie in [0, 1], not {beta}")
    if beta in (0, 1):  # 0·∞ is NaN
        return vae(log_w) if beta else iwae(log_w)
    return beta * vae(log_w) + (1 - beta) * iwae(log_w)


def miwae(log_w: Tensor, *, k1: int, k2: int) -> Tensor:
    """Mean of k2 independent IWAE bounds of k1 draws each; k = k1·k2. Lower bound.

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
    """A number that a bound takes besides the log-weights."""

    label: str  # of a field where it is entered
    symbol: str  # in titles
    low: float  # from here …
    high: float  # … to here
    default: float
    usual: tuple[float, float]  # where it makes a difference that can be seen: the range of a slider
    whole: bool = False
    help: str = ""

    def checked(self, title: str, value: Any) -> float:
        """The value as a plain number. Raises ValueError for one that is no number or out of range; ``title`` names
        it there."""
        kind: Any = Integral if self.whole else Real
        if not isinstance(value, kind) or isinstance(value, bool) or not self.low <= value <= self.high:
            words = "a whole number" if self.whole else "a finite number"
            raise ValueError(f"{title} must be {words} from {self.low:,} to {self.high:,}, not {value!r}")
        return int(value) if isinstance(value, Integral) else float(value)


def _always(**parameters: float) -> bool:
    return True


@dataclass(frozen=True)
class Objective:
    """One row of the table: a bound and all that the rest of the program knows of it."""

    title: str
    function: Callable[..., Tensor]
    curvature: Callable[..., Tensor] | None  # the diagonal of its second derivative; None where it has none
    formula: str  # in LaTeX
    source: str
    parameters: dict[str, Parameter] = field(default_factory=dict)
    lower_bound: Callable[..., bool] = _always  # whether its expectation is at most log p(x), for these parameters
    k_matters: bool = True  # whether its expectation depends on k
    kl_weight: str | None = None  # the parameter that weighs the KL part of the log-weights
    factors: tuple[str, ...] = ()  # the parameters whose product is k, where they fix it

    @property
    def summary(self) -> str:
        """What it is, in a line: its equation, what it is good for, and its source."""
        equation, _, _ = (self.function.__doc__ or "").partition("\n")
        return f"{equation} {self.source}."


MANY = 100_000  # a larger exponent makes no difference
EXPONENT = Parameter(
    "Exponent p", "p", -MANY, MANY, 2.0, (-2, 4), help="p = 1 is IWAE and p = 0 is VAE. Up to 1 it is a lower bound."
)
KL_WEIGHT = Parameter(
    "α, weight of the KL", "α", 0, MANY, 0.5, (0, 4), help="α = 1 is VAE, above it a β-VAE. From 1 it is a lower bound."
)
ORDER = Parameter(
    "α", "α", -MANY, MANY, 0.5, (-1, 2), help="α = 1 is VAE and α = 0 is IWAE. From 0 it is a lower bound."
)
SHARE = Parameter("β, share of the VAE bound", "β", 0, 1, 0.25, (0, 1), help="β = 1 is VAE and β = 0 is IWAE.")
GROUPS = {
    "k1": Parameter("k₁, draws in a group", "k1", 1, 1_000_000, 5, (1, 100), whole=True),
    "k2": Parameter("k₂, number of groups", "k2", 1, 1_000_000, 4, (1, 100), whole=True),
}

OBJECTIVES = {
    "vae": Objective(
        "VAE",
        vae,
        _no_curvature,
        r"\mathcal L = \frac1k \sum_{i=1}^k \log w_i",
        "Kingma & Welling 2014",
        k_matters=False,
    ),
    "iwae": Objective(
        "IWAE",
        iwae,
        _power_curvature,
        r"\mathcal L_k = \log \frac1k \sum_{i=1}^k w_i",
        "Burda, Grosse & Salakhutdinov 2016, eq. 8",
    ),
    "power-mean": Objective(
        "Power mean",
        power_mean,
        _power_curvature,
        r"\mathcal L_p = \frac1p \log \frac1k \sum_{i=1}^k w_i^p",
        "Arnal, Lee & Pezzotti 2021",
        {"p": EXPONENT},
        lower_bound=lambda p: p <= 1,
    ),
    "median": Objective(
        "Median",
        median,
        None,  # its weights jump
        r"\mathcal L = \operatorname{median}_i \, \log w_i",
        "Arnal, Lee & Pezzotti 2021",
        lower_bound=lambda: False,
    ),
    "l-alpha": Objective(
        "L_alpha",
        l_alpha,
        _no_curvature,
        r"\mathcal L_\alpha = \mathbb E_q \log p(x\,|\,h) - \alpha \, D_{\mathrm{KL}}(q(h\,|\,x) \,\|\, p(h))",
        "Arnal, Lee & Pezzotti 2021; β-VAE with β = α, Higgins et al. 2017",
        {"alpha": KL_WEIGHT},
        lower_bound=lambda alpha: alpha >= 1,
        k_matters=False,
        kl_weight="alpha",
    ),
    "renyi": Objective(
        "Rényi",
        renyi,
        _alpha_curvature,
        r"\mathcal L_\alpha = \frac1{1-\alpha} \log \frac1k \sum_{i=1}^k w_i^{1-\alpha}",
        "Li & Turner 2016, eq. 14",
        {"alpha": ORDER},
        lower_bound=lambda alpha: alpha >= 0,
    ),
    "ciwae": Objective(
        "CIWAE",
        ciwae,
        _ciwae_curvature,
        r"\mathcal L = \beta \, \mathcal L_{\mathrm{VAE}} + (1-\beta) \, \mathcal L_{\mathrm{IWAE}}",
        "Rainforth et al. 2018, eq. 10",
        {"beta": SHARE},
    ),
    "miwae": Objective(
        "MIWAE",
        miwae,
        _miwae_curvature,
        r"\mathcal L = \frac1{k_2} \sum_{j=1}^{k_2} \log \frac1{k_1} \sum_{i=1}^{k_1} w_{ij},\qquad k = k_1 k_2",
        "Rainforth et al. 2018, eq. 9",
        GROUPS,
        factors=("k1", "k2"),
    ),
}


def factorings(k: int, names: Sequence[str]) -> list[dict[str, int]]:
    """Every way to write k ≥ 1 as a product of one factor for each name."""
    first, *rest = names
    if not rest:
        return [{first: k}]
    return [{first: d} | more for d in range(1, k + 1) if k % d == 0 for more in factorings(k // d, rest)]


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
        """The number of draws k that the parameters fix, or None where any k will do."""
        factors = OBJECTIVES[self.name].factors
        return int(math.prod(self.parameters[name] for name in factors)) if factors else None

    @property
    def kl_weight(self) -> float:
        """The weight of the KL part of the log-weights: α of ``l-alpha``, and 1 for the others."""
        name = OBJECTIVES[self.name].kl_weight
        return float(self.parameters[name]) if name else 1.0

    @property
    def equal_weights(self) -> bool:
        """Whether ``weights`` are 1/k whatever the log-weights, as for the ELBO: no draw is preferred to another."""
        second = self.curvature(torch.zeros(self.draws or 2, 1))
        return second is not None and not second.any()

    @property
    def lower_bound(self) -> bool:
        """Whether its expectation is at most log p(x) for every model and image."""
        return OBJECTIVES[self.name].lower_bound(**self.parameters)

    @property
    def smooth(self) -> bool:
        """Whether it has a second derivative."""
        return OBJECTIVES[self.name].curvature is not None

    @property
    def title(self) -> str:
        """The objective's name for people, with its parameters: ``CIWAE β = 0.25``."""
        row = OBJECTIVES[self.name]
        return titled(row.title, row.parameters, self.parameters)

    def __call__(self, log_w: Tensor) -> Tensor:
        return OBJECTIVES[self.name].function(log_w, **self.parameters)

    def weights(self, log_w: Tensor) -> Tensor:
        """∂bound/∂log w, [k, batch]: non-negative, summing to 1 over the draws (for IWAE the normalised weights)."""
        if len(log_w) == 1:  # of every bound: a constant added to log_w is added to it
            return torch.ones_like(log_w)
        if self.name == "iwae":  # the same as below, without the 0.1 ms of autograd
            return log_w.detach().softmax(0)
        with torch.enable_grad():
            given = log_w.detach().requires_grad_()
            return torch.autograd.grad(self(given).sum(), given)[0]

    def curvature(self, log_w: Tensor) -> Tensor | None:
        """∂²bound/∂(log wᵢ)², [k, batch], or None where it does not exist."""
        second = OBJECTIVES[self.name].curvature
        return None if second is None else second(log_w.detach(), **self.parameters)


def titled(title: str, parameters: dict[str, Parameter], values: dict[str, float]) -> str:
    """A title with the values of its parameters behind it."""
    return f"{title} {', '.join(f'{parameters[name].symbol} = {value:g}' for name, value in values.items())}".strip()


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "no parameters"
