"""Reconstructions: images encoded, decoded, and compared with the input.

Four pictures of each image x, means of the pixels, and what each costs: −Σ_pixels log p(pixel), nats per image, where
the probability, or density, of a pixel is averaged as the picture is. For pixels of zeros and ones that is the
picture's cross-entropy to x.

    draw      decoded from one draw of q(h|x); its loss is the mean over the draws of −log p(x|h), the poster's
              reconstruction loss. With more than one layer h₁ comes down through the decoder from the draw of h_L
    mean      decoded from the mean of q(h₁|x)
    average   the plain average of the decoded draws, E_q[p(x|h)]
    weighted  their average by importance weight: an estimate of the true posterior's picture
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.evaluation.sampling import Block, Progress, map_draws
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel, Sample
from iwae.system import reprs

PICTURES = ("draw", "mean", "average", "weighted")
MIN_PROBABILITY = 1e-6  # probability of a pixel in a cross-entropy: an average of float32 pictures can round to 0 or 1


@dataclass(frozen=True)
class ReconstructionResult:
    """The pictures of n images, in 256 grey levels, and their losses; on the CPU."""

    pictures: dict[str, Tensor]  # of PICTURES: uint8 [n, pixels]
    losses: dict[str, Tensor]  # the same: [n], nats
    samples: int
    seed: int

    __repr__ = reprs.one_line


@torch.no_grad()
def reconstructions(
    model: LatentModel, x: Tensor, *, samples: int = 50, seed: int = 0, progress: Progress | None = None
) -> ReconstructionResult:
    """The pictures and losses of images x [n, pixels], from ``samples`` draws of q(h|x) each.

    Raises ValueError for images that the model does not take (``Model.check_images``) or fewer than 1 sample,
    NonFiniteError where a loss is not finite.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    x = model.check_images(x)

    def measure(block: Block, draws: Iterator[Sample]) -> tuple[dict, dict]:
        return _measure(model, block, draws, samples)

    found = map_draws(measure, model, x, samples, seed=seed, progress=progress)
    pictures, losses = (
        {name: torch.cat([part[name] for part in half]) for name in PICTURES} for half in zip(*found, strict=True)
    )
    for name, values in losses.items():
        check_finite(values, f"the loss of the reconstruction ({name})")
    return ReconstructionResult(pictures, losses, samples, seed)


def cross_entropy(x: Tensor, picture: Tensor) -> Tensor:
    """−Σ_pixels x log p + (1 − x) log(1 − p), nats: [..., pixels] → [...]; p is clamped by ``MIN_PROBABILITY``."""
    p = picture.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return -torch.where(x > 0, p, 1 - p).log().sum(-1)


def _measure(model: LatentModel, block: Block, draws: Iterator[Sample], samples: int) -> tuple[dict, dict]:
    x = block.x
    largest = x.new_full((len(x),), -torch.inf)  # log-weight so far: the sums below are relative to it
    total, loss = x.new_zeros(2, len(x))
    average, weighted = torch.zeros(2, *x.shape, device=x.device)
    log_average, log_weighted = x.new_full((2, *x.shape), -torch.inf)  # of the pixels' probabilities, summed
    likelihood = model.likelihood
    first, descent = None, torch.Generator(x.device).manual_seed(block.generator.initial_seed() + 1)
    for sample in draws:
        decoded = model.decode(sample.h[0])  # draws, batch, pixels
        before, largest = largest, torch.maximum(largest, sample.log_w.max(0).values)
        weight, scale = (sample.log_w - largest).exp(), (before - largest).exp()
        total = total * scale + weight.sum(0)
        weighted = weighted * scale.unsqueeze(1) + torch.einsum("kb,kbp->bp", weight, decoded)
        average += decoded.sum(0)
        h1 = model.ancestral_sample(sample.h[-1], descent) if model.decoder else sample.h[0]
        loss -= (model.log_likelihood(x, h1, checked=True) if model.decoder else sample.log_px).sum(0)
        if first is None:
            first = model.decode(h1[0])
        if not likelihood.binary:
            log_p = likelihood.pixel_log_prob(x, model.logits(sample.h[0]))
            log_average = torch.logaddexp(log_average, log_p.logsumexp(0))
            log_weighted = torch.logaddexp(log_weighted, (log_p + sample.log_w.unsqueeze(2)).logsumexp(0))
    pictures = {
        "draw": first,
        "mean": model.decode(model.encode_first(x)[0]),
        "average": average / samples,
        "weighted": weighted / total.unsqueeze(1),
    }
    if likelihood.binary:
        losses = {name: cross_entropy(x, picture).cpu() for name, picture in pictures.items()}
    else:
        mean_loss = -likelihood.log_prob(x, model.logits(model.encode_first(x)[0]))
        log_total = (largest + total.log()).unsqueeze(1)
        averages = {"average": log_average - math.log(samples), "weighted": log_weighted - log_total}
        losses = {"mean": mean_loss.cpu()} | {name: -log_p.sum(-1).cpu() for name, log_p in averages.items()}
    grey = {name: (255 * picture.clamp(0, 1)).round().byte().cpu() for name, picture in pictures.items()}
    return grey, losses | {"draw": (loss / samples).cpu()}
