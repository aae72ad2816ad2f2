"""The NLL of test images by annealing: what L_S misses of log p(x), and how much of the VAE bound is q's fault.

log p̂(x) of ``ais``, and L_S and the ELBO of draws from q, are of the same images, so that their differences are paired:

    missed          log p̂(x) − L_S     what S draws from q do not find
    kl_posterior    log p̂(x) − ELBO    D_KL(q(h|x) ‖ p(h|x)), without what L_S misses

log p̂ lies below log p(x) in expectation, so both are too small rather than too large. By how much is bounded on images
sampled from the model, by the gap to an upper bound from the other end of the path (bidirectional Monte Carlo).
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from iwae.evaluation import metrics
from iwae.evaluation.stats import mean_se
from iwae.inference import ais
from iwae.model import Model

IMAGES = 1000  # test images; by then the error over images, of ``missed``, is a few hundredths of a nat
CHAINS, TEMPERATURES = 4, 500  # of each image: docs/definitions.md says why so few chains do for a mean
SIMULATED = 100  # images that the model makes up
STEP = 4  # the cost of a step of a chain, with its gradient and its part of the pilot, in draws from q

Progress = ais.Progress


@dataclass(frozen=True)
class AnnealedNLL:
    """Of every image; nats."""

    annealed: ais.Annealed  # log p̂(x), with the chains
    drawn: metrics.Metrics  # L_S and ELBO of the same images
    gap: Tensor | None  # upper − lower bound on log p(x) of each image sampled from the model
    seed: int

    @property
    def missed(self) -> Tensor:
        """log p̂(x) − L_S, [images]."""
        return self.annealed.log_p + self.drawn.nll.cpu()

    @property
    def kl_posterior(self) -> Tensor:
        """D_KL(q(h|x) ‖ p(h|x)) = log p̂(x) − ELBO, [images]."""
        return self.annealed.log_p - self.drawn.elbo.cpu()

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON and a card, which keeps them as ``ais``.

        Means over images with their standard errors ``*_se``, None of a single one; ``nll_mc_se``, the part of the
        NLL's that the chains have; ``scatter``, the mean standard deviation of an image's log-weights; and what it is
        of.
        """
        out: dict[str, Any] = {}
        of = {"nll": -self.annealed.log_p, "nll_draws": self.drawn.nll, "elbo": self.drawn.elbo}
        for name, values in (of | {"missed": self.missed, "kl_posterior": self.kl_posterior}).items():
            out[name], out[f"{name}_se"] = mean_se(values)
        out["nll_mc_se"] = self.annealed.error.square().mean().sqrt().item() / math.sqrt(len(self.missed))
        out |= {"scatter": self.annealed.scatter.mean().item(), "acceptance": self.annealed.acceptance.mean().item()}
        out["gap"], out["gap_se"] = (None, None) if self.gap is None else mean_se(self.gap)
        out["simulated"] = 0 if self.gap is None else len(self.gap)
        out |= {"chains": self.annealed.chains, "temperatures": self.annealed.temperatures}
        return out | {"images": len(self.missed), "samples": self.drawn.samples, "seed": self.seed}


def measure(
    model: Model,
    x: Tensor,
    *,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    samples: int = 5000,
    simulated: int = SIMULATED,
    seed: int = 0,
    progress: Progress | None = None,
) -> AnnealedNLL:
    """Anneal the images x [n, pixels], draw ``samples`` times from q for each, and bound the bias on ``simulated``
    images sampled from the model (0: not).

    Args:
        chains, temperatures: as for ``ais.anneal``, whose errors this raises too.
        progress: called with the images done, in parts, and all of them, those sampled from the model among these.
    """
    steps, draws = STEP * chains * temperatures, samples
    shares = [len(x) * draws, len(x) * steps, simulated * steps, simulated * steps]
    parts = iter(_parts(progress, shares, len(x) + simulated))
    drawn = metrics.evaluate(model, x, samples=samples, seed=seed, prune=False, progress=next(parts))
    path: dict[str, Any] = {"chains": chains, "temperatures": temperatures}
    annealed = ais.anneal(model, x, seed=seed, progress=next(parts), **path)
    gap = None
    if simulated:
        made, h = ais.simulated(model, simulated, seed)
        lower = ais.anneal(model, made, seed=seed + 1, progress=next(parts), **path).log_p
        gap = ais.upper_bound(model, made, h, seed=seed + 2, progress=next(parts), **path) - lower
    return AnnealedNLL(annealed, drawn, gap, seed)


def _parts(progress: Progress | None, shares: list[int], images: int) -> list[Progress | None]:
    """Callbacks of passes that take these shares of the time, which together take ``progress`` through the images."""
    if progress is None:
        return [None] * len(shares)

    def part(before: int, share: int) -> Progress:
        def show(done: int, total: int) -> None:
            progress(int(images * (before + share * done / total) / sum(shares)), images)

        return show

    return [part(sum(shares[:place]), share) for place, share in enumerate(shares)]
