"""Generated images: samples from the prior, the latent plane as a grid, interpolation, and nearest neighbours.

Pictures are pixel probabilities E[x|h₁], [..., pixels], on the CPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from iwae.kernels.finite import check_finite
from iwae.model import LatentModel

BLOCK = 5000  # training images compared at once: 16 MB as float32


def sample_prior(model: LatentModel, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """``count`` times h from the prior, h[l] of [count, latent[l]]: the top layer from N(0, I), every layer below drawn
    from p(hₗ|hₗ₊₁) (ancestral sampling)."""
    top = torch.randn(count, model.config.latent[-1], generator=generator, device=model.device)
    return model.ancestral_layers(top, generator)


@torch.no_grad()
def sample_images(model: LatentModel, count: int, seed: int = 0) -> Tensor:
    """``count`` images from the prior, [count, pixels], by ``draw``. Repeatable from ``seed``. Raises ValueError for a
    count below 1; as every function here, NonFiniteError where a pixel is not finite."""
    if count < 1:
        raise ValueError(f"the number of samples must be at least 1, not {count}")
    generator = torch.Generator(model.device).manual_seed(seed)
    return _decode(model, sample_prior(model, count, generator)[0])


@torch.no_grad()
def manifold(model: LatentModel, side: int = 20) -> Tensor:
    """The plane of a top layer of two units, [side·side, pixels], row by row from the top: decoded at the quantiles
    (i − ½)/side of the standard normal in each unit, so that every cell holds the same prior mass. Layers below are
    set to their means. Kingma & Welling 2014, figure 4. Raises ValueError where the top layer has not two units."""
    if model.config.latent[-1] != 2:
        raise ValueError(f"the plane needs a top layer of 2 units, not of {model.config.latent[-1]}")
    if side < 2:
        raise ValueError(f"a grid has at least 2 rows, not {side}")
    ticks = torch.special.ndtri((torch.arange(side, device=model.device) + 0.5) / side)
    second, first = torch.meshgrid(ticks.flip(0), ticks, indexing="ij")  # the first unit runs right, the second up
    return _decode(model, model.ancestral_sample(torch.stack([first, second], -1).view(-1, 2)))


@torch.no_grad()
def interpolate(model: LatentModel, x: Tensor, steps: int = 10) -> Tensor:
    """The straight line in h₁ between the means of q(h₁|x) of two images x [2, pixels], decoded at ``steps`` equal
    distances with both ends: [steps, pixels]. Raises ValueError for other images or fewer than 2 steps."""
    if steps < 2:
        raise ValueError(f"an interpolation needs at least 2 steps, not {steps}")
    start, end = model.encode_first(model.check_images(x, count=2))[0]
    share = torch.linspace(0, 1, steps, device=model.device)[:, None]
    return _decode(model, start.lerp(end, share))


@torch.no_grad()
def reconstructions(model: LatentModel, x: Tensor) -> Tensor:
    """Images x [n, pixels] decoded from the means of q(h₁|x)."""
    return _decode(model, model.encode_first(model.check_images(x))[0])


def _decode(model: LatentModel, h1: Tensor) -> Tensor:
    outputs = model.logits(h1)
    check_finite(outputs, "what the decoder says of a pixel")  # a logit that overflowed would be a pixel of 0 or 1
    return model.likelihood.mean(outputs).cpu()


class Neighbours(NamedTuple):
    """The nearest of some images, nearest first."""

    index: Tensor  # [n, count]
    distance: Tensor  # [n, count]


def nearest(pictures: Tensor, images: Tensor, count: int = 1) -> Neighbours:
    """The ``count`` images, uint8 [m, pixels] of grey 0…255, nearest to each picture [n, pixels] in [0, 1].

    Distance: Euclidean, (Σ (picture − image/255)²)^½ over the pixels; 0 is the same picture, 1 one pixel wholly
    different. Raises ValueError for a count that is not 1 … m.
    """
    if not 1 <= count <= len(images):
        raise ValueError(f"the number of neighbours must lie between 1 and {len(images)}, not {count}")
    best, index = torch.full((len(pictures), 0), 0.0), torch.full((len(pictures), 0), 0)
    for start in range(0, len(images), BLOCK):
        part = images[start : start + BLOCK].float() / 255
        squares = part.square().sum(1) - 2 * pictures @ part.T  # minus |picture|², which is the same for all
        order = torch.arange(start, start + len(part)).expand(len(pictures), -1)
        best, kept = torch.cat([best, squares], 1).topk(min(count, start + len(part)), largest=False)
        index = torch.cat([index, order], 1).gather(1, kept)
    exact = (pictures[:, None] - images[index].float() / 255).norm(dim=-1)  # without the rounding of the difference
    distance, order = exact.sort(1)
    return Neighbours(index.gather(1, order), distance)
