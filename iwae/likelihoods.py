"""Likelihoods p(x|h): what the decoder's outputs say of the pixels, one row of ``LIKELIHOODS`` each.

    bernoulli              zeros and ones
    continuous-bernoulli   grey levels in [0, 1]. Loaiza-Ganem & Cunningham 2019
    gaussian               real numbers; mean and standard deviation of every pixel are decoded
    gaussian-0.1           the same with this standard deviation for all pixels, or another from 0.001 to 10
    discretized-logistic   the 256 grey levels 0, 1/255, …, 1. Kingma et al. 2016, Salimans et al. 2017

To add one, write a subclass of ``Likelihood`` and its row; ``ModelConfig`` and its text form take its name. NLLs of two
likelihoods cannot be compared: a probability of zeros and ones, a density and a probability of grey levels are measured
on different scales.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iwae import inputs
from iwae.kernels import bernoulli

LEVELS = 256  # of grey, in a file of 8 bits
MIN_STD = 1 / LEVELS  # of a learned Gaussian: the density of a pixel that never changes would grow without end
MIN_LOG_SCALE = -7.0  # of a logistic: narrower ones put all of their probability on one level
SMALL = 0.3  # |logit| below which the continuous Bernoulli takes series around 0


class Likelihood(ABC):
    """A distribution of images in which the pixels are independent given the decoder's outputs.

    ``outputs`` below are [..., pixels · per_pixel]: first one number for every pixel, then the next for every pixel.
    Log-probabilities are in nats.
    """

    label: str  # in a list of choices
    title: str  # of the outputs, after their number: "Bernoulli logits"
    per_pixel: int = 1  # outputs for each pixel
    binary: bool = False  # whether x is of zeros and ones; else of grey levels
    bits: bool = False  # whether it gives probabilities to 8-bit grey levels, for which bits per pixel are usual

    @abstractmethod
    def check_images(self, x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
        """Images of ``shape`` (rows, columns) as [n, pixels], with the device and dtype of ``like``. Raises ValueError
        for images that it gives no probability, and where there are not ``count`` of them."""

    @abstractmethod
    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The output layer's first bias, [pixels · per_pixel], from the mean of the training images [pixels]."""

    def outputs(self, parameters: Tensor) -> Tensor:
        """The outputs, [..., pixels · per_pixel], of a distribution with these parameters, as they are named in
        ``title``: the same numbers, but where a scale has a least value."""
        return parameters

    @abstractmethod
    def pixel_log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p of each pixel, [..., batch, pixels], of images x [batch, pixels] for outputs
        [..., batch, pixels · per_pixel]."""

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x|h) [..., batch], the sum over the pixels."""
        return self.pixel_log_prob(x, outputs).sum(-1)

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """E[x|h], [..., pixels]."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of x for each row of outputs, [..., pixels]."""

    def bits_per_pixel(self, nats: float, pixels: int) -> float | None:
        """An NLL in bits for each of the ``pixels``, where it is of 8-bit grey levels; else None."""
        return nats / (pixels * math.log(2)) if self.bits else None

    def fused_log_prob(self, x: Tensor, h1: Tensor, linears: Sequence[nn.Linear]) -> Tensor | None:
        """``log_prob`` through a decoder of these linear layers with tanh between them, [k, batch], where there is a
        faster way than layer after layer; else None.

        x is [batch, pixels], h1 [k, batch, latent[0]], on a CPU.
        """
        return None


class Bernoulli(Likelihood):
    """Pixels of zeros and ones. The outputs are the logits l: log p(x|h) = Σ_pixels x·l − log(1 + eˡ)."""

    label = "zeros and ones"
    title = "Bernoulli logits"
    binary = True

    def check_images(self, x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
        return inputs.binary_images(x, shape, like, count)

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The logit of the mean, clipped to [0.001, 0.999]. Burda et al. 2016."""
        return pixel_mean.clamp(0.001, 0.999).logit()

    def pixel_log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        return x * outputs - F.softplus(outputs)

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        return bernoulli.log_likelihood(x, outputs)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chance = torch.rand(outputs.shape, generator=generator, device=outputs.device)
        return (chance < self.mean(outputs)).to(outputs.dtype)

    def fused_log_prob(self, x: Tensor, h1: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
        return bernoulli.fused_log_likelihood(x, h1, linears)


class ContinuousBernoulli(Likelihood):
    """Grey levels in [0, 1] with density p(x) = eˡˣ·l / (eˡ − 1) for the logit l. Loaiza-Ganem & Cunningham 2019, where
    l = log λ − log(1 − λ)."""

    label = "grey, continuous Bernoulli"
    title = "continuous Bernoulli logits"

    def check_images(self, x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
        return inputs.grey_images(x, shape, like, count)

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The logit whose mean is the mean of the training images, clipped to [0.02, 0.98]; by bisection."""
        wanted = pixel_mean.clamp(0.02, 0.98)
        low, high = torch.full_like(wanted, -60.0), torch.full_like(wanted, 60.0)
        for _ in range(40):
            middle = (low + high) / 2
            below = self.mean(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def pixel_log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """x·l − log((eˡ − 1)/l), the last as l/2 + log(sinh(l/2)/(l/2)), whose second part is even and 0 at l = 0."""
        size = outputs.abs()
        far = size.clamp(min=SMALL)
        square = size.square()
        series = square / 24 * (1 - square / 120 * (1 - square / 63 * (1 - 3 * square / 160)))
        even = torch.where(size < SMALL, series, far / 2 + (-torch.expm1(-far) / far).log())
        return (x - 0.5) * outputs - even

    def mean(self, outputs: Tensor) -> Tensor:
        """1/(1 − e^−l) − 1/l, ½ at l = 0."""
        size = outputs.abs()
        far, square = size.clamp(min=SMALL), size.square()
        series = 0.5 + size / 12 * (1 - square / 60 * (1 - square / 42 * (1 - square / 40)))
        mean = torch.where(size < SMALL, series, -1 / torch.expm1(-far) - 1 / far)
        return torch.where(outputs < 0, 1 - mean, mean)

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """By the inverse of the distribution function: for l > 0 1 + log(1 − u·(1 − e^−l))/l, mirrored for l < 0."""
        size = outputs.abs().clamp(min=1e-4)  # nearer to 0 the distribution is uniform up to 3e-5
        u = torch.rand(outputs.shape, generator=generator, device=outputs.device, dtype=outputs.dtype)
        drawn = (1 + torch.log1p(u * torch.expm1(-size)) / size).clamp(0, 1)
        return torch.where(outputs < 0, 1 - drawn, drawn)


class Gaussian(Likelihood):
    """Real numbers, x ~ N(μ, σ²), with an output for μ and one for σ, which is at least ``MIN_STD``."""

    label = "grey, Gaussian"
    title = "means and log standard deviations"
    per_pixel = 2

    def check_images(self, x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
        return inputs.real_images(x, shape, like, count)

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The mean of the training images, and −1 for log σ."""
        return torch.cat([pixel_mean, torch.full_like(pixel_mean, -1.0)])

    def outputs(self, parameters: Tensor) -> Tensor:
        mean, log_std = parameters.chunk(2, -1)
        return torch.cat([mean, _before_at_least(log_std, math.log(MIN_STD))], -1)

    def mean_and_log_std(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ, [..., pixels] each."""
        mean, log_std = outputs.chunk(2, -1)
        return mean, _at_least(log_std, math.log(MIN_STD))

    def pixel_log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        mean, log_std = self.mean_and_log_std(outputs)
        z = (x - mean) * (-log_std).exp()
        return -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))

    def mean(self, outputs: Tensor) -> Tensor:
        return self.mean_and_log_std(outputs)[0]

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_std = self.mean_and_log_std(outputs)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)


class FixedGaussian(Gaussian):
    """Real numbers, x ~ N(μ, σ²), with an output for μ and the same σ for all pixels."""

    per_pixel = 1

    def __init__(self, std: float):
        self.log_std = math.log(std)
        self.title = f"means of Gaussians with a standard deviation of {std:g}"

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The mean of the training images."""
        return pixel_mean

    def outputs(self, parameters: Tensor) -> Tensor:
        return parameters

    def mean_and_log_std(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return outputs, torch.full_like(outputs[..., :1], self.log_std)


class DiscretizedLogistic(Likelihood):
    """The grey levels 0, 1/255, …, 1: a logistic distribution, of which each level gets the part that is nearest to it,
    and the two outer ones all that lies beyond. Kingma et al. 2016, eq. 15; Salimans et al. 2017, eq. 2."""

    label = "grey, discretized logistic"
    title = "means and log scales of logistic distributions"
    per_pixel = 2
    bits = True

    def check_images(self, x: Any, shape: tuple[int, int], like: Tensor, count: int | None = None) -> Tensor:
        return inputs.grey_images(x, shape, like, count, levels=LEVELS)

    def initial_bias(self, pixel_mean: Tensor) -> Tensor:
        """The mean of the training images, and −2 for the log scale."""
        return torch.cat([pixel_mean, torch.full_like(pixel_mean, -2.0)])

    def outputs(self, parameters: Tensor) -> Tensor:
        mean, log_scale = parameters.chunk(2, -1)
        return torch.cat([mean, _before_at_least(log_scale, MIN_LOG_SCALE)], -1)

    def pixel_log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Of a level between a and b = a + width: log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − e^−width)."""
        mean, rate = self._mean_and_rate(outputs)
        half = 0.5 / (LEVELS - 1)
        above, below = (x + half - mean) * rate, (x - half - mean) * rate
        log_p = F.logsigmoid(above) + F.logsigmoid(-below) + (-torch.expm1(-2 * half * rate)).log()
        log_p = torch.where(x <= half, F.logsigmoid(above), log_p)
        return torch.where(x >= 1 - half, F.logsigmoid(-below), log_p)

    def mean(self, outputs: Tensor) -> Tensor:
        """∫₀¹ P(x > t) dt, the mean of the logistic distribution clipped to [0, 1]. That of its levels, a sum of 255
        terms, differs by less than a tenth of a level."""
        mean, rate = self._mean_and_rate(outputs)
        return (F.softplus(mean * rate) - F.softplus((mean - 1) * rate)) / rate

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw of the logistic distribution, brought to the nearest level."""
        mean, rate = self._mean_and_rate(outputs)
        u = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        drawn = mean + torch.logit(u, eps=torch.finfo(u.dtype).tiny) / rate
        return (drawn.clamp(0, 1) * (LEVELS - 1)).round() / (LEVELS - 1)

    def _mean_and_rate(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, and 1/scale."""
        mean, log_scale = outputs.chunk(2, -1)
        return mean, (-_at_least(log_scale, MIN_LOG_SCALE)).exp()


def _at_least(value: Tensor, low: float) -> Tensor:
    """A smooth value > ``low``, which is nearly ``value`` where this is larger by more than a few."""
    return low + F.softplus(value - low)


def _before_at_least(value: Tensor, low: float) -> Tensor:
    """What ``_at_least`` makes ``value`` of; of one that is not above ``low``, nearly ``low``."""
    above = (value - low).clamp(min=1e-3)
    return low + above + (-torch.expm1(-above)).log()


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Bernoulli(),
    "continuous-bernoulli": ContinuousBernoulli(),
    "gaussian": Gaussian(),
    "discretized-logistic": DiscretizedLogistic(),
}
NAMES = f"{', '.join(LIKELIHOODS)}, gaussian-σ with a fixed standard deviation σ such as gaussian-0.1"


def find(name: Any) -> Likelihood:
    """The likelihood of this name, a row of ``LIKELIHOODS`` or ``gaussian-σ``. Raises ValueError for another one."""
    if isinstance(name, str):
        if name in LIKELIHOODS:
            return LIKELIHOODS[name]
        if (fixed := re.fullmatch(r"gaussian-(\d{1,2}(\.\d{1,6})?)", name, re.ASCII)) and 1e-3 <= float(fixed[1]) <= 10:
            return FixedGaussian(float(fixed[1]))
    raise ValueError(f"unknown likelihood {name!r}; there are {NAMES} (0.001 to 10)")
