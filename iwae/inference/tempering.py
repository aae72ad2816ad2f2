"""Tempered sequential Monte Carlo: a population of draws that moves from the prior to p(h|x_visible).

    p_β(h) ∝ p(h) p(x_visible|h)^β,   β from 0 to 1 in steps that leave half of the draws effective

Each step resamples the draws by p(x_visible|h) to the power of the step in β, and moves each by Hamiltonian dynamics
that leave p_β invariant. The product of the mean weights estimates p(x_visible) without bias, but for the step sizes,
which follow the draws. The encoder is not used, so the modes that it misses are found as well.

It works on the noise ε behind h, h_L = ε_L and h_l = mean(h_l₊₁) + std(h_l₊₁)·ε_l, whose prior is a standard normal
for any number of stochastic layers.

Sources: Neal 2001; Del Moral, Doucet & Jasra 2006 (sequential Monte Carlo samplers); Jasra, Stephens, Doucet &
Tsagaris 2011 (steps in β by effective sample size); Lee & Whiteley 2018 (a standard error from one run).
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.kernels.finite import NonFiniteError
from iwae.model import LOG_2PI, Model
from iwae.system import reprs

START = 5000  # draws of the prior
PARTICLES = 500  # that go on from them
EFFECTIVE = 0.5  # share of the particles that a step in β leaves effective
LEAPFROGS = 3  # for each move
MOVES_AT_END = 2  # more moves where β is 1
STEPS = 200  # in β, at most
ACCEPTED = 0.7  # of the moves, what the step size aims at


class Target:
    """log p(x_visible|h) of one image x [pixels] as a function of ε; ``pixel_mask`` is [pixels] of bool."""

    def __init__(self, model: Model, x: Tensor, pixel_mask: Tensor):
        self.model, self.pixel_mask = copy.deepcopy(model).requires_grad_(False), pixel_mask.to(model.device)
        self.x = model.check_images(x, count=1)
        self.size = sum(model.config.latent)

    def h(self, noise: Tensor) -> tuple[Tensor, ...]:
        """h of every layer, [n, latent[l]] each, from ε [n, size]."""
        *lower, top = noise.split(self.model.config.latent, -1)
        h = [top]
        for decoder, eps in zip(reversed(self.model.decoder), reversed(lower), strict=True):
            mean, log_std = decoder(h[0])
            h.insert(0, mean + log_std.exp() * eps)
        return tuple(h)

    def log_px(self, h1: Tensor) -> Tensor:
        """log p(x_visible|h₁), [n]."""
        return self.model.log_likelihood(self.x, h1.unsqueeze(1), self.pixel_mask, checked=True)[:, 0]

    def slope(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x_visible|h) [n] and its gradient in ε [n, size]."""
        with torch.enable_grad():
            noise = noise.detach().requires_grad_()
            log_px = self.log_px(self.h(noise)[0])
            (gradient,) = torch.autograd.grad(log_px.sum(), noise)
        return log_px.detach(), gradient


def log_prior(noise: Tensor) -> Tensor:
    """log N(ε; 0, I), [n]."""
    return -0.5 * (noise.square().sum(-1) + noise.shape[-1] * LOG_2PI)


@dataclass(frozen=True)
class Population:
    """Draws of p(h|x_visible), all of the same weight."""

    noise: Tensor  # ε, [n, size]
    log_px: Tensor  # log p(x_visible|h), [n]
    log_p: float  # the estimate of log p(x_visible), nats
    ancestor: Tensor  # [n], which of the first draws each descends from

    __repr__ = reprs.one_line

    @property
    def effective(self) -> float:
        """1/Σ share², over the first draws and the share of the population that descends from each: draws of one
        ancestor count as one."""
        share = self.ancestor.bincount().double() / len(self.ancestor)
        return 1 / share.square().sum().item()

    @property
    def log_p_se(self) -> float:
        """Standard error of ``log_p`` by the scatter between ancestors (Lee & Whiteley 2018, to first order), nats."""
        return math.sqrt(1 / self.effective)


@torch.no_grad()
def temper(target: Target, generator: torch.Generator, start: int = START, particles: int = PARTICLES) -> Population:
    """Move ``particles`` of ``start`` draws of the prior to p(h|x_visible). Raises NonFiniteError where
    log p(x_visible|h) of a draw of the prior is not finite."""
    noise = torch.cat([layer[:, 0] for layer in target.model.noise(start, 1, generator)], -1)
    log_px = torch.cat([target.log_px(target.h(rows)[0]) for rows in noise.split(particles)])
    if not log_px.isfinite().all():
        raise NonFiniteError(
            "log p(x|h) of draws from the prior is not a finite number: the weights of this model are so large that "
            "float32 cannot hold what follows from them"
        )
    ancestor = torch.arange(start, device=noise.device)
    log_p, beta, step, at_end = 0.0, 0.0, 0.5 * target.size**-0.25, 0
    slope = None
    for _ in range(STEPS):
        if beta < 1:
            chosen, rise, mean = _reweigh(log_px, 1 - beta, EFFECTIVE * particles, particles, generator)
            noise, ancestor = noise[chosen], ancestor[chosen]
            slope = target.slope(noise) if slope is None else (slope[0][chosen], slope[1][chosen])
            beta, log_p = beta + rise, log_p + mean
        elif (at_end := at_end + 1) > MOVES_AT_END:
            break
        assert slope is not None  # since the first step, whose beta is 0
        noise, slope, accepted = _move(target, noise, slope, beta, step * noise.std(0), generator)
        log_px = slope[0]
        step *= math.exp(accepted - ACCEPTED)
    return Population(noise, log_px, log_p, ancestor)


def _reweigh(
    log_px: Tensor, left: float, effective: float, count: int, generator: torch.Generator
) -> tuple[Tensor, float, float]:
    """(which draws go on [count], the step in β, at most ``left``, that leaves so many ``effective``, log mean
    weight)."""
    log_px = log_px.cpu().double()

    def enough(rise: float) -> bool:
        return 1 / (rise * log_px).softmax(0).square().sum().item() >= effective

    low, high = 0.0, left
    if enough(left):
        low = left
    else:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if enough(middle) else (low, middle)
    log_w = low * log_px
    # systematic resampling: one random number, evenly spread over the cumulated weights
    first = torch.rand(1, generator=generator, device=generator.device).cpu().double()
    places = (torch.arange(count) + first) / count
    chosen = torch.searchsorted(log_w.softmax(0).cumsum(0), places).clamp_max(len(log_w) - 1)
    return chosen.to(generator.device), low if low < left else left, log_w.logsumexp(0).item() - math.log(len(log_w))


def _move(
    target: Target,
    noise: Tensor,
    slope: tuple[Tensor, Tensor],
    beta: float,
    step: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
    """One Hamiltonian move of every draw; ``step`` [size] for each coordinate. Returns what ``temper`` keeps, and the
    share of the moves that were accepted."""

    def random(kind, *shape: int) -> Tensor:
        return kind(*shape, generator=generator, device=noise.device, dtype=noise.dtype)

    def energy(noise: Tensor, log_px: Tensor, momentum: Tensor) -> Tensor:
        return 0.5 * (noise.square() + momentum.square()).sum(-1) - beta * log_px

    momentum = random(torch.randn, *noise.shape)
    before, moved, there = energy(noise, slope[0], momentum), noise, slope
    step = step * (0.8 + 0.4 * random(torch.rand, len(noise), 1))  # of no fixed length: no orbit closes
    for _ in range(LEAPFROGS):
        momentum = momentum + 0.5 * step * (beta * there[1] - moved)
        moved = moved + step * momentum
        there = target.slope(moved)
        momentum = momentum + 0.5 * step * (beta * there[1] - moved)
    gain = before - energy(moved, there[0], momentum)
    accepted = random(torch.rand, len(noise)).log() < gain  # not where the gain is NaN
    noise = torch.where(accepted.unsqueeze(1), moved, noise)
    log_px = torch.where(accepted, there[0], slope[0])
    gradient = torch.where(accepted.unsqueeze(1), there[1], slope[1])
    return noise, (log_px, gradient), accepted.float().mean().item()
