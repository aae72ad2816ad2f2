"""Images of which a part is hidden: which pixels stay visible, and the posterior p(h|x_visible) that they leave."""

import math

import numpy as np
import torch
from torch import Tensor

from iwae.draws import DRAWS
from iwae.model import Model, log_normal
from iwae.posterior import Posterior, posterior

SIDE = 28
HALF = SIDE // 2
FILLINGS, ROUNDS = 50, 10  # of the hidden pixels, that the proposal is made from
Box = tuple[int, int, int, int]  # first row, row after the last, first column, column after the last

PARTS: dict[str, Box | None] = {
    "left half": (0, SIDE, 0, HALF),
    "right half": (0, SIDE, HALF, SIDE),
    "top half": (0, HALF, 0, SIDE),
    "bottom half": (HALF, SIDE, 0, SIDE),
    "a box": None,  # of one's own
}


def visible(box: Box) -> Tensor:
    """[784] of bool: False inside the box. Raises ValueError for a box that does not lie in the picture."""
    top, bottom, left, right = box
    if not (0 <= top <= bottom <= SIDE and 0 <= left <= right <= SIDE):
        raise ValueError(f"a box is (top ≤ bottom, left ≤ right) within 0 to {SIDE}, not {box}")
    seen = torch.ones(SIDE, SIDE, dtype=torch.bool)
    seen[top:bottom, left:right] = False
    return seen.reshape(-1)


def veiled(image: Tensor | np.ndarray, seen: Tensor) -> np.ndarray:
    """The picture [784] with its hidden pixels in grey."""
    return np.where(seen.numpy(), np.asarray(image), 0.5)


@torch.no_grad()
def fillings(model: Model, x: Tensor, seen: Tensor, generator: torch.Generator, count: int = FILLINGS) -> Tensor:
    """Pictures [count, pixels] that agree with x [pixels] where it is ``seen``: the first is dark elsewhere.

    The others have gone ROUNDS times through h ~ q(h|x), hidden pixels ~ p(x|h). Rezende, Mohamed & Wierstra 2014,
    section 6.4 (imputation of missing data).
    """
    filled = (x * seen).repeat(count, 1)
    for _ in range(ROUNDS):
        h, _ = model.propose(filled, model.noise(1, count, generator))
        dice = torch.rand(filled.shape, generator=generator, device=filled.device)
        filled = torch.where(seen, x, (dice < model.decode(h[0][0])).float())
    filled[0] = x * seen
    return filled


@torch.no_grad()
def occluded(model: Model, x: Tensor, seen: Tensor, *, samples: int = 5000, seed: int = 0) -> Posterior:
    """Weighted draws from p(h|x_visible): the likelihood counts the pixels of x [pixels] that are ``seen`` alone.

    Any q is a proposal, but the encoder's for a picture with dark hidden pixels misses by tens of nats: it takes the
    dark for seen. So q is the even mixture of the encoder's proposals for several fillings, every one of them in the
    density (Owen & Zhou 2000): log w = log p(x_visible|h) + log p(h) − log Σ_j q(h|x_j)/J, exact for any fillings.
    With nothing hidden it is ``posterior``.
    """
    if seen.all():
        return posterior(model, x, samples=samples, seed=seed)
    x, seen = x.to(model.device), seen.to(model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    filled = fillings(model, x, seen, generator)
    noise = model.noise(math.ceil(samples / FILLINGS), FILLINGS, generator)
    mean, log_std = first = model.first(filled)
    h, log_qh = model.propose(filled, noise, first=first)
    log_above = log_qh - log_normal(h[0], mean, log_std)  # of the layers above the first, which see h₁ alone
    h = tuple(layer.flatten(0, 1)[:samples, None] for layer in h)  # draws, 1, latent
    share = ((torch.arange(samples, device=x.device) % FILLINGS).bincount(minlength=FILLINGS) / samples).log()
    parts = []
    for rows in zip(*(layer.split(10 * DRAWS) for layer in h), strict=True):
        parts.append((log_normal(rows[0], mean, log_std), *model.log_joint(x[None], rows, visible=seen)))
    components, log_px, log_ph = (torch.cat(part) for part in zip(*parts, strict=True))
    log_q = (components + share).logsumexp(1) + log_above.flatten()[:samples]
    log_w = (log_px + log_ph)[:, 0] - log_q
    spread = (log_std.exp().square().mean(0) + mean.var(0, correction=0)).sqrt()  # moments of the mixture
    layers = tuple(layer[:, 0].cpu() for layer in h)
    return Posterior(x.cpu(), mean.mean(0).cpu(), spread.cpu(), layers, log_px[:, 0].cpu(), log_w.cpu(), seed)
