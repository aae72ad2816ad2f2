"""Annealed importance sampling: an estimate of log p(x) that does not rest on how well q fits, with honest errors.

    π_β(h) ∝ q(h|x)^(1−β) p(x, h)^β,   β from 0 to 1,   or from the prior:  π_β(h) ∝ p(h) p(x|h)^β

Each chain starts with a draw from π_0, and at each temperature β_t takes one Hamiltonian transition that leaves π_β_t
invariant. Its weight is w = Π_t π_β_t(h_t₋₁)/π_β_t₋₁(h_t₋₁), so that E[w] = p(x) for any number of temperatures, any q
and any step sizes fixed beforehand. The log of a mean of such weights is a stochastic lower bound: it exceeds log p(x)
by t nats with probability at most e^−t. The states at the end, weighted by w, are draws from the true posterior.

Sources: Neal 2001 (annealed importance sampling); Sohl-Dickstein & Culpepper 2012 (one leapfrog step for each
temperature, its momentum kept in part); Wu, Burda, Salakhutdinov & Grosse 2017 (decoder-based models); Grosse,
Ghahramani & Adams 2015 (bidirectional Monte Carlo).
"""

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import scipy
import torch
from torch import Tensor
from torch.nn import functional as F

from iwae.evaluation.sampling import blocks
from iwae.kernels import threads
from iwae.kernels.finite import check_finite
from iwae.model import Model, to_float64
from iwae.system import reprs

CHAINS, TEMPERATURES = 32, 1000
REFRESHED = 0.5  # standard deviation of what is new in the momentum at each temperature
ACCEPTED = 0.9  # mean acceptance that the pilot aims at: a rejection turns the momentum round
PILOT, PILOT_FEWEST = 8, 50  # temperatures of the run for each one of the pilot's, which has no fewer than that
GAIN = 0.2  # by how much the pilot changes log(step size) for each unit of missing acceptance
SCALED_BY = 200  # draws from which the scale of each unit is found
CERTAIN = 1.0  # standard deviation of the chains' log-weights up to which their scatter gives an error that holds

Start = Literal["encoder", "prior"]
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Annealed:
    """Chains from a start to the posterior of each image, on the CPU; nats."""

    log_w: Tensor  # [chains, images], float64
    h: tuple[Tensor, ...]  # h[l]: [chains, images, latent[l]], where the chains ended
    acceptance: Tensor  # [images], the share of the proposed steps that were accepted
    start: Start
    temperatures: int
    seed: int

    __repr__ = reprs.one_line

    @property
    def chains(self) -> int:
        return len(self.log_w)

    @property
    def log_p(self) -> Tensor:
        """log p̂(x) = log of the mean weight, [images]: a stochastic lower bound on log p(x)."""
        return self.log_w.logsumexp(0) - math.log(self.chains)

    @property
    def weights(self) -> Tensor:
        """Normalised weights of the end states, [chains, images]: with them they are draws from p(h|x)."""
        return self.log_w.softmax(0)

    def draws(self, count: int, seed: int = 0) -> tuple[Tensor, ...]:
        """End states chosen by weight, [count, images, latent[l]] for each layer: draws from p(h|x)."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.multinomial(self.weights.T, count, replacement=True, generator=generator).T  # count, images
        return tuple(layer.gather(0, rows.unsqueeze(-1).expand(-1, -1, layer.shape[-1])) for layer in self.h)

    @property
    def ess(self) -> Tensor:
        """Effective number of chains, (Σw)²/Σw², [images]."""
        return 1 / self.weights.square().sum(0)

    @property
    def scatter(self) -> Tensor:
        """Standard deviation of the chains' log-weights, [images]."""
        return self.log_w.std(0)

    @property
    def error(self) -> Tensor:
        """Standard error of ``log_p`` by the delta method, sd(w)/(mean(w)·√chains), [images]; it holds where ``shown``.

        The chains' log-weights scatter by half a nat, not by ten as those of draws from q do.
        """
        return ((1 / self.ess - 1 / self.chains) * self.chains / (self.chains - 1)).clamp_min(0).sqrt()

    @property
    def shown(self) -> Tensor:
        """[images] of bool: whether an error may be shown. Where the log-weights scatter more than ``CERTAIN``, a few
        chains decide, and ``log_p`` is a lower bound with no error."""
        return self.scatter <= CERTAIN

    def interval(self, rate: float = 0.95) -> tuple[Tensor, Tensor]:
        """Ends of the interval, [images] each, that holds log p(x) at this rate, by Student's t over the chains."""
        half = scipy.special.stdtrit(self.chains - 1, (1 + rate) / 2) * self.error
        return self.log_p - half, self.log_p + half


def anneal(
    model: Model,
    x: Tensor,
    *,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    start: Start = "encoder",
    seed: int = 0,
    progress: Progress | None = None,
) -> Annealed:
    """Estimate log p(x) of images x [n, pixels], each with its own chains.

    Args:
        temperatures: steps from the start to the posterior; twice as many give half the variance of the log-weights.
        start: "encoder" begins at q(h|x), which is near; "prior" makes an estimate that does not need q.
        progress: called after every step with steps done and steps in all, from whichever thread took it. What it
            raises ends the work: that is how to cancel.

    The step size of every image at every temperature is found by a pilot run and then fixed. Were it to follow the
    chain's own past, the transitions would no longer leave π_β invariant, and E[w] would not be p(x).

    Raises ValueError for images that the model does not take (``Model.check_images``) or numbers out of range,
    NonFiniteError where a weight is not finite.
    """
    if chains < 2 or temperatures < 2:
        raise ValueError(
            f"annealing needs at least 2 chains and 2 temperatures, not {chains} chains and {temperatures}"
        )
    if start not in ("encoder", "prior"):
        raise ValueError(f"chains start from 'encoder' or 'prior', not {start!r}")
    x = model.check_images(x)
    parts = blocks(x, seed)
    tick = _ticks(progress, len(parts) * (temperatures + _pilot_length(temperatures)))
    model = _without_gradients(model)

    def run(part: tuple[Tensor, torch.Generator]) -> tuple[_Ran, tuple[Tensor, ...]]:
        block, generator = part
        path = _Path(model, block, start, generator)
        steps = _pilot(path, chains, temperatures, generator, tick)
        ran = _run(path, path.begin(chains, generator), path.betas(temperatures), steps, generator, tick)
        return ran, path.layers(ran.z)

    ran, h = zip(*_spread(run, parts, x.device), strict=True)
    log_w = torch.cat([part.log_w for part in ran], 1).cpu()
    check_finite(log_w.sum(0), "log p̂(x) by annealing")
    layers = tuple(torch.cat(layer, 1).cpu() for layer in zip(*h, strict=True))
    accepted = torch.cat([part.accepted.mean(0) for part in ran]).cpu()
    return Annealed(log_w, layers, accepted, start, temperatures, seed)


def simulated(model: Model, images: int, seed: int = 0) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Images x [images, pixels] that the model makes up, and the h they are from: one exact draw from each p(h|x)."""
    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        h = model.ancestral_layers(model.noise(1, images, generator)[-1][0], generator)
        return model.likelihood.sample(model.logits(h[0]), generator), h


def upper_bound(
    model: Model,
    x: Tensor,
    h: tuple[Tensor, ...],
    *,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    start: Start = "encoder",
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """A stochastic upper bound on log p(x), [n], from one exact posterior draw h of each image (see ``simulated``).

    The same path taken backwards, from h to the start: E[1/w] = 1/p(x). The gap to ``anneal`` bounds the bias of both
    (bidirectional Monte Carlo). ``progress`` as there.
    """
    x = model.check_images(x)
    parts, model = blocks(x, seed), _without_gradients(model)
    tick = _ticks(progress, len(parts) * (temperatures + _pilot_length(temperatures)))
    exact = torch.cat(h, -1).split([len(block) for block, _ in parts])

    def run(item: tuple[tuple[Tensor, torch.Generator], Tensor]) -> Tensor:
        (block, generator), z = item
        path = _Path(model, block, start, generator)
        steps = _pilot(path, chains, temperatures, generator, tick)
        z = z.expand(chains, *z.shape).contiguous()
        return _run(path, z, path.betas(temperatures).flip(0), steps.flip(0), generator, tick).log_w

    log_w = torch.cat(_spread(run, list(zip(parts, exact, strict=True)), x.device), 1).cpu()
    check_finite(log_w.sum(0), "the upper bound on log p(x)")
    return math.log(chains) - log_w.logsumexp(0)


class _State(NamedTuple):
    """log π_β(z) = base + β·slope, [chains, images], at positions z [chains, images, units of all layers]."""

    z: Tensor
    base: Tensor
    slope: Tensor
    g_base: Tensor
    g_slope: Tensor

    def log_density(self, beta: Tensor) -> Tensor:
        return self.base + beta * self.slope

    def gradient(self, beta: Tensor) -> Tensor:
        return torch.add(self.g_base, self.g_slope * beta)

    def where(self, chosen: Tensor, other: "_State") -> "_State":
        """This one for the ``chosen`` [chains, images], the other elsewhere."""
        each = chosen.unsqueeze(-1)
        return _State(*(torch.where(each if a.dim() == 3 else chosen, a, b) for a, b in zip(self, other, strict=True)))


class _Path:
    """The densities between the start and the posterior of a block of images."""

    def __init__(self, model: Model, x: Tensor, start: Start, generator: torch.Generator):
        self.model, self.x, self.start = model, x, start
        with torch.no_grad():
            self.encoded = model.encode_first(x)
            some, _ = model.sample_posterior(x, model.noise(SCALED_BY, len(x), generator), encoded=self.encoded)
            self.sizes = [layer.shape[-1] for layer in some]
            self.near = torch.cat(some, -1).var(0)  # [images, units], about as wide as the posterior
            self.far = self.near if start == "encoder" else self.begin(SCALED_BY, generator).var(0)

    @torch.no_grad()
    def begin(self, chains: int, generator: torch.Generator) -> Tensor:
        """Draws from π_0."""
        noise = self.model.noise(chains, len(self.x), generator)
        if self.start == "encoder":
            return torch.cat(self.model.sample_posterior(self.x, noise, encoded=self.encoded)[0], -1)
        return torch.cat(self.model.ancestral_layers(noise[-1], generator), -1)

    def betas(self, count: int) -> Tensor:
        """0 to 1 in ``count`` steps: even from q, along which the slope varies about as much everywhere; from the prior
        along a sigmoid, finer at both ends."""
        even = torch.linspace(0, 1, count + 1, device=self.x.device, dtype=self.near.dtype)
        if self.start == "encoder":
            return even
        bent = (8 * even - 4).sigmoid()
        return (bent - bent[0]) / (bent[-1] - bent[0])

    def layers(self, z: Tensor) -> tuple[Tensor, ...]:
        return z.split(self.sizes, -1)

    def scale(self, beta: Tensor) -> Tensor:
        """By which each unit's steps are multiplied, [images, units]: about π_β's standard deviation."""
        return ((1 - beta) / self.far + beta / self.near).rsqrt()

    def look(self, z: Tensor) -> _State:
        """The densities and gradients at z."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            h = self.layers(z)
            log_px, log_ph = self.model.log_joint(self.x, h, checked=True)
            if self.start == "encoder":
                base, slope = self.model.log_q(self.x, h, detached=True, encoded=self.encoded), log_px + log_ph
            else:
                base, slope = log_ph, log_px
            (g_base,) = torch.autograd.grad(base.sum(), z, retain_graph=True)
            (g_slope,) = torch.autograd.grad(slope.sum(), z)
        z, base, slope = z.detach(), base.detach(), slope.detach()
        if self.start == "encoder":
            slope, g_slope = slope - base, g_slope - g_base
        return _State(z, base, slope, g_base, g_slope)


class _Ran(NamedTuple):
    log_w: Tensor  # [chains, images]
    z: Tensor  # [chains, images, units]
    steps: Tensor  # [temperatures + 1, images]
    accepted: Tensor  # [temperatures, images]


@torch.no_grad()
def _run(
    path: _Path,
    z: Tensor,
    betas: Tensor,
    steps: Tensor,
    generator: torch.Generator,
    tick: Callable[[], None],
    adapt: bool = False,
) -> _Ran:
    """From betas[0] to betas[-1], in either direction: a transition at each temperature, then the weight to the next.

    ``steps`` [temperatures + 1, images] are the step sizes; with ``adapt`` the first of them is changed as it goes.
    """

    def normal() -> Tensor:
        return torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)

    state, momentum = path.look(z), normal()
    log_w, step, used, accepted = to_float64(torch.zeros_like(state.base)), steps[0], [], []
    for number, (beta, after) in enumerate(pairwise(betas)):
        step = step if adapt else steps[number]
        momentum = math.sqrt(1 - REFRESHED**2) * momentum + REFRESHED * normal()
        state, momentum, probability = _transition(path, state, momentum, beta, step, generator)
        log_w += to_float64((after - beta) * state.slope)
        used.append(step)
        accepted.append(probability.mean(0))
        if adapt:
            step = step * (GAIN * (accepted[-1] - ACCEPTED)).exp()
        tick()
    return _Ran(log_w, state.z, torch.stack([*used, step]), torch.stack(accepted))


def _transition(
    path: _Path, state: _State, momentum: Tensor, beta: Tensor, step: Tensor, generator: torch.Generator
) -> tuple[_State, Tensor, Tensor]:
    """One leapfrog step of ``step`` [images] times the units' scale, accepted or turned round; and the probabilities
    [chains, images] that it was accepted with."""
    length = step.unsqueeze(-1) * path.scale(beta)
    halfway = momentum + length / 2 * state.gradient(beta)
    there = path.look(state.z + length * halfway)
    arrived = halfway + length / 2 * there.gradient(beta)
    change = there.log_density(beta) - state.log_density(beta)
    change = change - (arrived.square() - momentum.square()).sum(-1) / 2
    probability = change.nan_to_num(-math.inf).clamp_max(0).exp()
    chance = torch.rand(probability.shape, generator=generator, device=probability.device)
    accepted = chance < probability
    return there.where(accepted, state), torch.where(accepted.unsqueeze(-1), arrived, -momentum), probability


def _pilot(path: _Path, chains: int, temperatures: int, generator: torch.Generator, tick: Callable[[], None]) -> Tensor:
    """Step sizes [temperatures + 1, images] for the path, from a shorter run of other chains that adapts them."""
    z = path.begin(chains, generator)
    first = torch.full((1, len(path.x)), z.shape[-1] ** -0.25, device=z.device, dtype=z.dtype)
    found = _run(path, z, path.betas(_pilot_length(temperatures)), first, generator, tick, adapt=True).steps
    return F.interpolate(found.log().T[None], temperatures + 1, mode="linear", align_corners=True)[0].T.exp()


def _pilot_length(temperatures: int) -> int:
    return max(temperatures // PILOT, PILOT_FEWEST)


def _without_gradients(model: Model) -> Model:
    """A copy whose weights want no gradient: those in h are cheaper so, and the caller's model stays as it is."""
    return copy.deepcopy(model).requires_grad_(False)


def _spread(function: Callable, parts: list, device: torch.device) -> list:
    """``function`` of every block, on a CPU on all threads."""
    return (threads.parallel_map if device.type == "cpu" else threads.serial_map)(function, parts)


def _ticks(progress: Progress | None, total: int) -> Callable[[], None]:
    """To be called after every step, by any thread."""
    done, lock = 0, threading.Lock()

    def tick() -> None:
        nonlocal done
        if progress is not None:
            with lock:
                done += 1
                progress(done, total)

    return tick
