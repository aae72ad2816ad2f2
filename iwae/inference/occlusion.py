"""Images of which a part is hidden: which pixels stay visible, and the posterior p(h|x_visible) that they leave.

The encoder is no guide here: it takes hidden pixels for dark ones, and misses whole modes of p(h|x_visible). So

1. draws of the prior are tempered towards p(h|x_visible) (``tempering``): a population, and an estimate of
   log p(x_visible) whose standard error counts the population's ancestors;
2. Gaussians are fitted to the population, and with a share of the prior they are the proposal of an importance sampler:
   log w = log p(x_visible, h) − log q(h), and because of that share w ≤ p(x_visible|h)/PRIOR_SHARE;
3. where the latent space is a plane, a grid gives the exact posterior (``plane``).

What is shown is the grid where there is one, else the weighted draws where they are worth more than the population,
else the population. The estimates check each other: each may miss modes, but none can find too many.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iwae.inference.exact_posterior import plane
from iwae.inference.posterior import Posterior, posterior
from iwae.inference.tempering import Population, Target, log_prior, temper
from iwae.model import LOG_2PI, Model, to_float64

Box = tuple[int, int, int, int]  # first row, row after the last, first column, column after the last

HALVES = ("left half", "right half", "top half", "bottom half")

PRIOR_SHARE = 0.1  # of the draws come from the prior
FOR_EACH_UNIT = 10  # draws of the population for each coordinate of a Gaussian that is fitted to them
COMPONENTS = 8  # at most
WIDER = 1.2  # times the fitted covariance is that of the proposal, so that its tails cover
HEAVY = 0.7  # k̂ of weights whose standard error is too small
FEW = 10.0  # independent draws below which a few decide
APART = 4.0  # standard errors of the difference beyond which two estimates disagree


@dataclass(frozen=True)
class Occluded:
    """p(h|x_visible) of one image, by the surest way there is, and what speaks against it; nats."""

    drawn: Posterior  # draws with their weights, or the points of a grid with their mass
    way: str  # "exact grid", "weighted draws", "tempered draws" or "draws from q(h|x)"
    log_p: float  # log p(x_visible), or its estimate
    log_p_se: float | None  # its standard error; None for a grid, or where none is known
    effective: float | None  # how many independent draws of p(h|x_visible) it is worth; None for a grid
    doubt: str | None = None  # why it may be wrong, in a sentence


def half(name: str, shape: tuple[int, int]) -> Box:
    """The box of one of HALVES of a picture of ``shape`` (rows, columns)."""
    height, width = shape
    return {
        "left half": (0, height, 0, width // 2),
        "right half": (0, height, width // 2, width),
        "top half": (0, height // 2, 0, width),
        "bottom half": (height // 2, height, 0, width),
    }[name]


def visible_pixels(box: Box, shape: tuple[int, int]) -> Tensor:
    """[h · w] of bool for a picture of ``shape``: False inside the box. Raises ValueError for a box that does not lie
    in the picture."""
    top, bottom, left, right = box
    height, width = shape
    if not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
        raise ValueError(f"a box is (top ≤ bottom, left ≤ right) within {height} rows and {width} columns, not {box}")
    pixel_mask = torch.ones(shape, dtype=torch.bool)
    pixel_mask[top:bottom, left:right] = False
    return pixel_mask.reshape(-1)


def veiled(image: Tensor | np.ndarray, pixel_mask: Tensor) -> np.ndarray:
    """The picture [pixels] with its hidden pixels in grey."""
    return np.where(pixel_mask.numpy(), np.asarray(image), 0.5)


@torch.no_grad()
def occluded(model: Model, x: Tensor, pixel_mask: Tensor, *, samples: int = 5000, seed: int = 0) -> Occluded:
    """p(h|x_visible): the likelihood counts those pixels of x [pixels] alone where ``pixel_mask`` [pixels] is true.

    Args:
        samples: draws of the importance sampler, at least 21.
        seed: of every random number.

    With nothing hidden the draws are those of ``posterior``. Raises NonFiniteError where a density is not finite.
    """
    if pixel_mask.all():
        drawn = posterior(model, x, samples=samples, seed=seed)
        return Occluded(drawn, "draws from q(h|x)", drawn.log_p, drawn.log_p_se, drawn.ess, _few(drawn.ess))
    found = sampled(model, x, pixel_mask, samples=samples, seed=seed)
    if model.config.latent != (2,):
        return found
    exact = plane(model, found.drawn, pixel_mask=pixel_mask)
    doubt = None
    se = found.log_p_se
    if se is not None and abs(exact.log_p - found.log_p) > APART * se + exact.error:
        doubt = f"Sampling gives {found.log_p:.2f} ± {se:.2f} nats, the grid {exact.log_p:.2f}."
    return Occluded(exact.posterior(), "exact grid", exact.log_p, None, None, doubt)


@torch.no_grad()
def sampled(model: Model, x: Tensor, pixel_mask: Tensor, *, samples: int = 5000, seed: int = 0) -> Occluded:
    """As ``occluded``, by sampling alone."""
    generator = torch.Generator(model.device).manual_seed(seed)
    target = Target(model, x, pixel_mask)
    population = temper(target, generator)
    drawn = _proposed(target, population, samples, seed)
    if drawn is None:
        return _of_population(target, population, seed)
    log_p_se = _se(drawn)
    apart = drawn.log_p - population.log_p
    disagree = abs(apart) > APART * math.hypot(log_p_se, population.log_p_se)
    if drawn.ess < population.effective or drawn.k_hat > HEAVY or (disagree and apart < 0):
        return _of_population(target, population, seed)
    doubt = _few(drawn.ess)
    if disagree:
        doubt = f"Two estimates disagree: {drawn.log_p:.1f} and {population.log_p:.1f} nats."
    return Occluded(drawn, "weighted draws", drawn.log_p, log_p_se, drawn.ess, doubt)


def _of_population(target: Target, population: Population, seed: int) -> Occluded:
    h = target.h(population.noise)
    log_w = torch.full_like(to_float64(population.log_px), population.log_p)
    drawn = _posterior(target.x[0], h, population.log_px, log_w, seed)
    few = _few(population.effective)
    return Occluded(drawn, "tempered draws", population.log_p, population.log_p_se, population.effective, few)


def _proposed(target: Target, population: Population, samples: int, seed: int) -> Posterior | None:
    """Weighted draws whose proposal is fitted to the population; None where that has too few draws for a fit."""
    count, size = population.noise.shape
    components = min(COMPONENTS, count // (FOR_EACH_UNIT * size))
    if not components:
        return None
    from sklearn.exceptions import ConvergenceWarning  # a second, and only here
    from sklearn.mixture import GaussianMixture

    centre, scale = population.noise.mean(0), population.noise.std(0)
    standard = ((population.noise - centre) / scale).cpu().double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any fit is a proposal
        fit = GaussianMixture(components, reg_covar=1e-3, max_iter=50, random_state=seed).fit(standard)
    shares, means, covariances = (torch.from_numpy(part) for part in (fit.weights_, fit.means_, fit.covariances_))
    factors = torch.linalg.cholesky(WIDER * covariances)  # on the CPU in float64, as all of the mixture

    of_prior = math.ceil(PRIOR_SHARE * samples)
    local = torch.Generator().manual_seed(seed)
    which = torch.multinomial(shares, samples - of_prior, replacement=True, generator=local)
    noise = torch.randn(samples, size, dtype=torch.float64, generator=local)
    centre, scale = centre.cpu().double(), scale.cpu().double()
    for number, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        mine = (which == number).nonzero()[:, 0]  # of the last draws none: they stay draws of the prior
        noise[mine] = centre + scale * (mean + noise[mine] @ factor.T)
    densities = []
    for share, mean, factor in zip(shares, means, factors, strict=True):
        z = torch.linalg.solve_triangular(factor, ((noise - centre) / scale - mean).T, upper=False)
        volume = factor.diagonal().log().sum() + scale.log().sum()
        densities.append(share.log() - 0.5 * (z.square().sum(0) + size * LOG_2PI) - volume)
    log_prior_density = log_prior(noise)
    mixture = torch.stack(densities).logsumexp(0) + math.log(1 - of_prior / samples)
    log_q = torch.logaddexp(mixture, log_prior_density + math.log(of_prior / samples))
    h = target.h(noise.to(population.noise))
    log_px = target.log_px(h[0])
    return _posterior(target.x[0], h, log_px, to_float64(log_px).cpu() + log_prior_density - log_q, seed)


def _posterior(x: Tensor, h: tuple[Tensor, ...], log_px: Tensor, log_w: Tensor, seed: int) -> Posterior:
    """The draws as a ``Posterior``, whose mean and std are those of the draws of h₁ by weight."""
    h, log_w = tuple(layer.cpu() for layer in h), log_w.cpu()
    weights = log_w.double().softmax(0)
    mean = weights @ h[0].double()
    std = (weights @ (h[0].double() - mean).square()).sqrt()
    return Posterior(x.cpu(), mean.to(h[0]), std.to(h[0]), h, log_px.cpu(), log_w, seed)


def _se(drawn: Posterior) -> float:
    """Standard error of log p̂ by the delta method: sd(w)/(mean(w)·√samples)."""
    return math.sqrt(max(1 / drawn.ess - 1 / drawn.samples, 0.0))


def _few(effective: float) -> str | None:
    if effective >= FEW:
        return None
    return f"Only {effective:.1f} independent draws decide, and there may be modes that none of them reached."
