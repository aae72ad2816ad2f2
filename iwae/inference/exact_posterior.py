"""The exact posterior of one image, or of its visible pixels, where the latent space is a plane: Bayes' rule on a grid.

p(h|x) = p(x, h) / p(x),   p(x) = ∫ p(x, h) dh ≈ Σ p(x, h) Δ²   over the grid's cells of area Δ²
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.inference.posterior import Posterior
from iwae.model import LatentModel, log_standard
from iwae.system import reprs

SIDE = 121  # points of the grid in each direction; odd, so that every second one makes a grid of its own
PASSES = 3  # grids, each in the window of what the one before it found
WIDE = 6.0  # the first window is at least the square of this half width: 1e-8 of the prior's mass lies outside
DEPTH = 14.0  # nats below the highest point that are still looked at: a density of 1e-6 of the highest
COARSE = 0.01  # nats by which every second point may differ; else there are twice as many in each direction
POINTS = 1000  # decoded at once


@dataclass(frozen=True)
class Plane:
    """log p(x, h) on a square grid that holds the posterior of one image, float64 on the CPU; nats. Where only some
    pixels are visible, x stands for those."""

    first: Tensor  # [side], the first unit at the columns
    second: Tensor  # [side], the second unit at the rows
    log_joint: Tensor  # [side, side], log p(x, h)
    drawn: Posterior  # q, and the draws of it

    __repr__ = reprs.one_line

    @property
    def log_p(self) -> float:
        """log p(x) = log ∫ p(x, h) dh, by the grid."""
        return _log_integral(self.log_joint, self._cell)

    @property
    def error(self) -> float:
        """How much ``log_p`` differs from that of every second point in each direction: a bound on what the grid's
        coarseness does, for a smooth posterior."""
        return abs(self.log_p - _log_integral(self.log_joint[::2, ::2], 4 * self._cell))

    @property
    def log_posterior(self) -> Tensor:
        """log p(h|x), [side, side]."""
        return self.log_joint - self.log_p

    @property
    def kl(self) -> float:
        """D_KL(q(h|x) ‖ p(h|x)) = log p(x) − ELBO, the ELBO from q's draws."""
        return self.log_p - self.drawn.elbo

    @property
    def regions(self) -> Tensor:
        """[side, side]: the mass of the smallest region of highest density that has this point on its border."""
        share = self._mass.flatten()
        order = share.argsort(descending=True)
        held = torch.empty_like(share)
        held[order] = share[order].cumsum(0)
        return held.view_as(self.log_joint)

    def inside(self, share: float = 0.99) -> float:
        """The part of the exact posterior in the ellipse that holds ``share`` of q."""
        first, second = (self._grid.to(self.drawn.mean) - self.drawn.mean).div(self.drawn.std).unbind(-1)
        return self._mass[first.square() + second.square() <= radius(share) ** 2].sum().item()

    @property
    def _mass(self) -> Tensor:
        return self.log_joint.flatten().softmax(0).view_as(self.log_joint)

    @property
    def _grid(self) -> Tensor:
        return _points(self.first, self.second)

    def posterior(self) -> Posterior:
        """The points of the grid as if they were draws, with their mass as weights: averages over them are exact."""
        h, log_joint = self._grid.flatten(0, 1), self.log_joint.flatten()
        log_w = log_joint + math.log(self._cell * len(h))  # whose mean is p(x)
        mean = self._mass.flatten() @ h
        std = (self._mass.flatten() @ (h - mean).square()).sqrt()
        h, mean, std, log_px = (part.to(self.drawn.h[0]) for part in (h, mean, std, log_joint - log_standard(h)))
        return Posterior(self.drawn.x, mean, std, (h,), log_px, log_w, self.drawn.seed)

    @property
    def _cell(self) -> float:
        return ((self.first[1] - self.first[0]) * (self.second[1] - self.second[0])).item()


def radius(share: float) -> float:
    """Of the circle that holds ``share`` of a standard normal in the plane: √(−2 log(1 − share))."""
    return math.sqrt(-2 * math.log1p(-share))


@torch.no_grad()
def plane(model: LatentModel, drawn: Posterior, side: int = SIDE, pixel_mask: Tensor | None = None) -> Plane:
    """The exact posterior behind ``drawn``, or that given the pixels alone where ``pixel_mask`` [pixels] is
    true, of which ``drawn`` is, too. Raises ValueError unless the model has one stochastic layer of two units.

    The first grid covers the prior and every draw, each next one what lies within DEPTH nats of the highest point and
    the draws that do: a mode that neither q nor the first grid meets would be missed.
    """
    if len(drawn.h) != 1 or drawn.h[0].shape[1] != 2:
        sizes = " and ".join(str(layer.shape[1]) for layer in drawn.h)
        raise ValueError(f"a plane needs one stochastic layer of 2 units, not {sizes}")
    h = drawn.h[0].double()
    joint = drawn.log_px.double() + log_standard(h)
    near = h[joint > joint.max() - DEPTH]
    half = max(WIDE, 1.1 * h.abs().max().item())
    low, high = torch.full((2,), -half), torch.full((2,), half)

    def grid(side: int) -> tuple[Tensor, Tensor, Tensor]:
        first, second = (torch.linspace(low[unit], high[unit], side, dtype=torch.float64) for unit in (0, 1))
        return first, second, _log_joint(model, drawn.x, _points(first, second).to(drawn.h[0].dtype), pixel_mask)

    for number in range(PASSES):
        first, second, log_joint = grid(side)
        if number < PASSES - 1:
            held = _points(first, second)[log_joint > max(log_joint.max(), joint.max()) - DEPTH]
            margin = torch.stack([first[1] - first[0], second[1] - second[0]])  # what is next to it may belong to it
            both = torch.cat([held, near])
            low, high = both.min(0).values - margin, both.max(0).values + margin
    found = Plane(first, second, log_joint, drawn)
    return found if found.error < COARSE else Plane(*grid(2 * side - 1), drawn)


def _log_joint(model: LatentModel, x: Tensor, h: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """log p(x, h) at points h [..., 2], as [...] in float64."""
    x, parts = x.to(model.device).unsqueeze(0), []
    pixel_mask = None if pixel_mask is None else pixel_mask.to(model.device)
    for part in h.view(-1, 1, 2).to(model.device).split(POINTS):
        log_px, log_ph = model.log_joint(x, (part,), pixel_mask=pixel_mask, checked=True)
        parts.append((log_px + log_ph)[:, 0].cpu().double())
    return torch.cat(parts).view(h.shape[:-1])


def _points(first: Tensor, second: Tensor) -> Tensor:
    """[rows, columns, 2]: the second unit along the rows, the first along the columns."""
    return torch.stack(torch.meshgrid(second, first, indexing="ij")[::-1], -1)


def _log_integral(log_density: Tensor, cell: float) -> float:
    return log_density.flatten().logsumexp(0).item() + math.log(cell)
