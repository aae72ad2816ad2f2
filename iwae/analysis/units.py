"""Single latent units: the information each carries, the loss without it, and what it draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iwae.analysis import latent
from iwae.evaluation.activity import Activity, mask_units
from iwae.evaluation.metrics import log_evidence
from iwae.evaluation.sampling import IMAGES
from iwae.figures.units import Band
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel, log_normal, to_float64

KL_DRAWS = 10  # of the layers whose KL has no closed form
RESAMPLES = 200  # sets of images behind a band


@torch.no_grad()
def unit_kl(model: LatentModel, x: Tensor, *, draws: int = KL_DRAWS, seed: int = 0) -> tuple[Tensor, ...]:
    """KL of each unit of every layer for images x [n, pixels]: E_q[log q(h_u|·) − log p(h_u|·)], nats, [n, latent].

    Summed over units and layers it is D_KL(q(h|x) ‖ p(h)) of each image. With one layer it is exact; with more, the
    top layer's is exact given the layer below, the others are means over ``draws``, and may be negative by noise.

    Raises ValueError for images that the model does not take (``Model.check_images``), NonFiniteError where a KL is
    not finite.
    """
    x, parts = model.check_images(x), []
    for block in x.split(IMAGES):
        generator = torch.Generator(x.device).manual_seed(seed * 1_000_003 + len(parts))
        count = 1 if len(model.encoder) == 1 else draws
        h, _ = model.sample_posterior(block, model.noise(count, len(block), generator))
        layers = []
        for i, (encoder, below) in enumerate(zip(model.encoder, (block, *h), strict=False)):
            mean, log_std = (to_float64(part) for part in encoder(below))
            if i == len(h) - 1:
                kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
            else:
                value, prior = to_float64(h[i]), (to_float64(part) for part in model.decoder[i](h[i + 1]))
                kl = _log_densities(value, mean, log_std) - _log_densities(value, *prior)
            layers.append(kl.mean(0) if kl.ndim == 3 else kl)  # draws, batch, latent
        parts.append(layers)
    found = tuple(torch.cat(layer).cpu() for layer in zip(*parts, strict=True))
    for number, kl in enumerate(found, 1):
        check_finite(kl, f"the KL of a unit in layer {number}")
    return found


def _log_densities(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N of every unit by itself."""
    return log_normal(*(part.unsqueeze(-1) for part in (value, mean, log_std)))


def count_bands(
    first: Tensor, second: Tensor, sizes: Sequence[int], *, threshold: float, seed: int = 0, resamples: int = RESAMPLES
) -> list[Band]:
    """The number of active units of one layer against the number of images, from ``evaluation.unit_means``; sets are
    drawn with replacement. Raises ValueError for fewer than 2 images."""
    if min(sizes) < 2:
        raise ValueError(f"a variance needs at least 2 images, not {min(sizes)}")
    random = np.random.default_rng(seed)
    a, b = (half.numpy() for half in (first, second))
    out = []
    for size in sizes:
        counts = []
        for _ in range(resamples):
            chosen = random.integers(len(a), size=size)
            one, two = a[chosen], b[chosen]
            variance = (np.einsum("nu,nu->u", one, two) - size * one.mean(0) * two.mean(0)) / (size - 1)
            counts.append(int((variance > threshold).sum()))
        low, high = np.quantile(counts, (0.025, 0.975))
        out.append(Band(size, float(np.mean(counts)), float(low), float(high)))
    return out


@dataclass(frozen=True)
class PruningLoss:
    """L_k of each image under the full model and without some units, nats, [n]."""

    full: Tensor
    pruned: Tensor

    @property
    def mean(self) -> float:
        """L_k of the whole model minus that without the units, nats per image."""
        return (self.full - self.pruned).mean().item()

    @property
    def se(self) -> float | None:
        """Its paired standard error over images; None for one image."""
        difference = self.full - self.pruned
        return (difference.std() / len(difference) ** 0.5).item() if len(difference) > 1 else None


def pruning_loss(
    model: LatentModel, x: Tensor, layers: tuple[Activity, ...], kept: Sequence[Tensor], *, samples: int, seed: int = 0
) -> PruningLoss:
    """L_samples of images x [n, pixels] with all units and with those that are ``kept`` ([latent] of bool, by layer):
    the others are fixed at their prior mean and removed from log p and log q, so both are bounds of a valid model."""
    unit_masks = mask_units(layers, kept, x.device)
    both = (log_evidence(model, x, samples=samples, seed=seed, unit_masks=one).cpu() for one in (None, unit_masks))
    return PruningLoss(*both)


def all_but(layers: tuple[Activity, ...], layer: int, unit: int) -> list[Tensor]:
    """``kept`` for ``pruning_loss``: every unit but this one (counted from 0)."""
    kept = [torch.ones(len(part.mean), dtype=torch.bool) for part in layers]
    if not (0 <= layer < len(kept) and 0 <= unit < len(kept[layer])):
        sizes = ", ".join(str(len(part)) for part in kept)
        raise ValueError(f"there is no unit {unit} in layer {layer}; the layers have {sizes} units, counted from 0")
    kept[layer][unit] = False
    return kept


@torch.no_grad()
def traverse(model: LatentModel, h: Tensor, layer: int, unit: int, values: Sequence[float]) -> Tensor:
    """Pictures [len(values), pixels] of a latent point h [latent of the layer] whose ``unit`` takes each value; from a
    layer above the first, the layers between are set to their means."""
    points = h.to(model.device).repeat(len(values), 1)
    points[:, unit] = torch.tensor(list(values), device=points.device, dtype=points.dtype)
    return model.decode(latent.first_layer(model, points, layer + 1)).cpu()
