"""What evaluation, posterior, latent space, units and reconstruction need of a model, and what it draws."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from iwae.bounds import weigh_kl
from iwae.likelihoods import Likelihood
from iwae.model_config import ModelConfig
from iwae.system import reprs

Gaussian = tuple[Tensor, Tensor]  # mean and log standard deviation


class Sample(NamedTuple):
    """k draws from q(h|x) and the three parts of their log-weights, each [k, batch], in nats."""

    log_px: Tensor  # log p(x|h₁)
    log_ph: Tensor  # log p(h), all layers
    log_qh: Tensor  # log q(h|x), all layers
    h: tuple[Tensor, ...]  # h[l]: [k, batch, latent[l]]

    __repr__ = reprs.one_line

    @property
    def log_w(self) -> Tensor:
        """log p(x, h) − log q(h|x), [k, batch]."""
        return self.log_px + self.log_ph - self.log_qh

    def log_weights(self, kl_weight: float | Tensor) -> Tensor:
        """log p(x|h) + kl_weight·(log p(h) − log q(h|x)), [k, batch]: ``log_w`` for a weight of 1."""
        return weigh_kl(self.log_w, self.log_px, kl_weight)


class UnitMask(NamedTuple):
    """Units that stay, for one stochastic layer; the others are held at a constant and leave log p and log q."""

    mask: Tensor  # [latent] of 0 and 1
    value: Tensor  # [latent], what a dropped unit is held at


@runtime_checkable
class LatentModel(Protocol):
    """What evaluation, posterior, latent space, units and reconstruction need of a model; ``Model`` has all of it.

    Images x are [batch, pixels], as ``check_images`` returns them. h is a tuple with a tensor for each stochastic
    layer, the one next to the pixels first, [..., batch, latent[l]]; a draw more is an axis in front.
    """

    @property
    def config(self) -> ModelConfig:
        """Units of each layer, shape of the images, name of the likelihood, and the widths that memory follows from."""
        ...

    @property
    def encoder(self) -> Any:
        """A sequence of functions, of the first layer from x and of each other one from the h below it to (mean, log
        standard deviation) of q, [..., latent[l]] each."""
        ...

    @property
    def decoder(self) -> Any:
        """A sequence of such functions for p(h[l] | h[l+1]), one fewer than layers: empty for a single one."""
        ...

    @property
    def likelihood(self) -> Likelihood:
        """p(x|h₁) of the pixels."""
        ...

    @property
    def device(self) -> torch.device:
        """Of its weights, where x and h must lie."""
        ...

    def check_images(self, x: Any, count: int | None = None) -> Tensor:
        """x in any accepted form as [n, pixels] on the model's device. Raises ValueError for images that the model
        gives no probability, and where there are not ``count`` of them."""
        ...

    def noise(self, k: int, batch: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """Standard normal draws, [k, batch, latent[l]] for each layer."""
        ...

    def encode_first(self, x: Tensor) -> Gaussian:
        """Mean and log standard deviation of q(h₁|x), [batch, latent[0]] each."""
        ...

    def sample(
        self,
        x: Tensor,
        k: int = 1,
        *,
        noise: tuple[Tensor, ...] | None = None,
        unit_masks: tuple[UnitMask, ...] | None = None,
        encoded: Gaussian | None = None,
        checked: bool = False,
    ) -> Sample:
        """Draws from q(h|x), by the given ``noise``, with their log-densities. Units that ``unit_masks`` drop are held
        at a constant and are in none of the densities. ``encoded`` is ``encode_first(x)``; ``checked`` says that x
        comes from ``check_images``."""
        ...

    def sample_posterior(self, x: Tensor, noise: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """h from q(h|x) by the given noise, and log q(h|x) [k, batch]."""
        ...

    def log_joint(
        self, x: Tensor, h: tuple[Tensor, ...], *, pixel_mask: Tensor | None = None, checked: bool = False
    ) -> tuple[Tensor, Tensor]:
        """log p(x|h₁) and log p(h), [k, batch] each, nats; ``pixel_mask`` as in ``log_likelihood``."""
        ...

    def log_likelihood(
        self, x: Tensor, h1: Tensor, pixel_mask: Tensor | None = None, *, checked: bool = False
    ) -> Tensor:
        """log p(x|h₁) [k, batch], nats; of the pixels alone where ``pixel_mask`` [pixels] is true."""
        ...

    def logits(self, h1: Tensor) -> Tensor:
        """The outputs that the likelihood takes, [..., pixels · per_pixel]."""
        ...

    def decode(self, h1: Tensor) -> Tensor:
        """E[x|h₁], [..., pixels]."""
        ...

    def ancestral_layers(self, top: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """h of all layers below and with the top layer's, drawn, or without a generator set to their means."""
        ...

    def ancestral_sample(self, top: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """h₁ of ``ancestral_layers``."""
        ...
