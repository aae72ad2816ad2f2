"""Likelihoods p(x|h): what the decoder's outputs say of the pixels, one row of ``LIKELIHOODS`` each.

To add one, write a subclass of ``Likelihood`` and its row; ``ModelConfig`` and its text form take its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iwae import inputs
from iwae.kernels import bernoulli


class Likelihood(ABC):
    """A distribution of images in which the pixels are independent given the decoder's outputs.

    ``outputs`` below are [..., pixels · per_pixel]: first one number for every pixel, then the next for every pixel.
    Log-probabilities are in nats.
    """

    title: str  # of the outputs, after their number: "Bernoulli logits"
    per_pixel: int = 1  # outputs for each pixel

    @abstractmethod
    def check_images(self, x: Any, pixels: int, like: Tensor, count: int | None = None) -> Tensor:
        """Images as [n, pixels], with the device and dtype of ``like``. Raises ValueError for images that it gives no
        probability, and where there are not ``count`` of them."""

    @abstractmethod
    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The output layer's first bias, [pixels · per_pixel], from the mean of the training images [pixels]."""

    @abstractmethod
    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x|h) [..., batch] of images x [batch, pixels], for outputs [..., batch, pixels · per_pixel]."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """E[x|h], [..., pixels]."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of x for each row of outputs, [..., pixels]."""

    def fused_log_prob(self, x: Tensor, h1: Tensor, linears: Sequence[nn.Linear]) -> Tensor | None:
        """``log_prob`` through a decoder of these linear layers with tanh between them, [k, batch], where there is a
        faster way than layer after layer; else None.

        x is [batch, pixels], h1 [k, batch, latent[0]], on a CPU.
        """
        return None


class Bernoulli(Likelihood):
    """Pixels of zeros and ones. The outputs are the logits l: log p(x|h) = Σ_pixels x·l − log(1 + eˡ)."""

    title = "Bernoulli logits"

    def check_images(self, x: Any, pixels: int, like: Tensor, count: int | None = None) -> Tensor:
        return inputs.binary_images(x, pixels, like, count)

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The logit of the mean, clipped to [0.001, 0.999]. Burda et al. 2016."""
        return pixel_mean.clamp(0.001, 0.999).logit()

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        return bernoulli.log_likelihood(x, outputs)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chance = torch.rand(outputs.shape, generator=generator, device=outputs.device)
        return (chance < self.mean(outputs)).to(outputs.dtype)

    def fused_log_prob(self, x: Tensor, h1: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
        return bernoulli.fused_log_likelihood(x, h1, linears)


LIKELIHOODS: dict[str, Likelihood] = {"bernoulli": Bernoulli()}
