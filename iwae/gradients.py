"""Estimators: how a bound becomes a gradient. One backward pass serves them all.

With c = ∂bound/∂log w the gradient of any bound is Σᵢ cᵢ ∇log wᵢ. An estimator keeps cᵢ for the decoder's
weights θ and chooses dᵢ for the encoder's φ, and whether φ is also reached through the density log q(h|x):

    exact   dᵢ = cᵢ, all of log q
    stl     dᵢ = cᵢ, only through h                            Roeder, Wu & Duvenaud 2017
    dreg    dᵢ = cᵢ − α ∂²bound/∂(log wᵢ)², only through h      Tucker et al. 2019 (for IWAE: dᵢ = w̃ᵢ²)
    piwae   dᵢ = the weights of a MIWAE bound, all of log q     Rainforth et al. 2018

α is the weight of the KL part of the log-weights, log p(x|h) + α (log p(h) − log q(h|x)): 1 for most objectives, α for
``l-alpha``, and less at the beginning of a KL warm-up. All rows hold for any α ≥ 0.

The dreg row is Tucker's identity for any smooth bound. φ moves log wᵢ through hᵢ and through the density of q. The
second part is the score term −α E[cᵢ ∇log q(hᵢ)]; it equals −α E[∂cᵢ/∂hᵢ · ∂hᵢ/∂φ], and ∂cᵢ/∂log wᵢ is the bound's own
second derivative.

``stl`` leaves the score term out. Its mean is zero where all cᵢ are equal (VAE, ``l-alpha``, or k = 1), and there stl
is unbiased. For every other bound with k > 1 it is biased: it is not the gradient of the bound, as dreg is. ``piwae``
is not either, by design: its encoder follows the MIWAE bound.

*Resampled*: all k draws are made without a graph, then m of them, chosen with probabilities c, go backward
(Burda et al. 2016, section 3: k forward passes, one backward). Unbiased for the estimator it stands for.

The number that is logged is always the bound itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from iwae.bounds import GROUPS, OBJECTIVES, Bound, Parameter
from iwae.model import Gaussian, Model, Sample

# w̃ᵢ may be next to 0 where PIWAE's encoder still weighs draw i: keep it just above bernoulli.NEGLIGIBLE, so that dᵢ/cᵢ
# is finite and the draw's gradient is not taken for nothing on its way to the encoder.
SMALLEST_WEIGHT = 1e-12


class Noise(NamedTuple):
    """All the randomness of one call of an estimator."""

    normal: tuple[Tensor, ...]  # of each stochastic layer, [k, batch, latent[l]]
    uniform: Tensor  # that choose the draws which go backward, [batch, m]

    def rows(self, chosen: slice) -> "Noise":
        """That of some images."""
        return Noise(tuple(eps[:, chosen] for eps in self.normal), self.uniform[chosen])


class Weights(NamedTuple):
    """Weights of ∇log wᵢ, each [k, batch]."""

    decoder: Tensor
    encoder: Tensor


class Chosen(NamedTuple):
    """The draws that go backward, m for each image."""

    normal: tuple[Tensor, ...]  # noise of each stochastic layer, [m, batch, latent[l]]
    weights: Weights | None  # [m, batch]; None for those that follow from the draws themselves


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """m indices for each image, [m, batch], with probabilities in proportion to weights [k, batch].

    By inversion of uniform [batch, m], from [0, 1): torch.multinomial would make the host wait for a GPU.
    """
    cumulated = weights.T.contiguous().cumsum(1)  # batch, k
    level = uniform * cumulated[:, -1:]
    index = torch.searchsorted(cumulated, level, right=True)  # the first whose sum is above the level
    return index.clamp_max(len(weights) - 1).T  # level may be rounded up to the whole sum


def _exact(bound: Bound, log_w: Tensor, kl_weight: float | Tensor) -> Weights:
    weights = bound.weights(log_w)
    return Weights(weights, weights)


def _dreg(bound: Bound, log_w: Tensor, kl_weight: float | Tensor) -> Weights:
    weights, curvature = bound.weights(log_w), bound.curvature(log_w)
    if curvature is None:
        raise ValueError(f"{bound.title} has no second derivative, which dreg needs")
    return Weights(weights, weights - kl_weight * curvature)


def _piwae(bound: Bound, log_w: Tensor, kl_weight: float | Tensor, *, k1: int, k2: int) -> Weights:
    encoder = Bound("miwae", {"k1": k1, "k2": k2})
    return Weights(bound.weights(log_w).clamp_min(SMALLEST_WEIGHT), encoder.weights(log_w))


@dataclass(frozen=True)
class Gradient:
    """One row of the table of estimators."""

    title: str
    weights: Callable[..., Weights]
    through_density: bool  # φ is also reached through log q(h|x; φ); if not, the bound must be smooth
    biased: bool = False  # where the draws have unequal weights: its mean is not the gradient of the bound
    objective: str | None = None  # the only bound that it goes with; None for any
    parameters: dict[str, Parameter] = field(default_factory=dict)  # their product is k


GRADIENTS = {
    "exact": Gradient("exact", _exact, through_density=True),
    "stl": Gradient("sticking the landing, biased for k > 1", _exact, through_density=False, biased=True),
    "dreg": Gradient("doubly reparameterized", _dreg, through_density=False),
    "piwae": Gradient("PIWAE", _piwae, through_density=True, objective="iwae", parameters=GROUPS),
}


@dataclass(frozen=True)
class Estimator:
    """A checked combination of bound, number of draws and gradient.

    Raises ValueError, saying why, for an unknown gradient, parameters it does not take, or a combination that
    is not a gradient of the bound.
    """

    bound: Bound
    k: int
    gradient: str = "exact"
    parameters: dict[str, int] = field(default_factory=dict)  # of the gradient: k1 and k2 for PIWAE
    resample: int = 0  # draws that go backward, m; 0 for all k

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise ValueError(f"unknown gradient {self.gradient!r}; there are {', '.join(GRADIENTS)}")
        row = GRADIENTS[self.gradient]
        if not (isinstance(self.k, int) and self.k >= 1):
            raise ValueError(f"k must be a whole number of at least 1, not {self.k}")
        if self.bound.draws not in (None, self.k):
            raise ValueError(f"{self.bound.title} has {self.bound.draws} draws, which is not k = {self.k}")
        if set(self.parameters) != set(row.parameters):
            takes = " and ".join(row.parameters) or "no parameters"
            raise ValueError(f"gradient {self.gradient!r} takes {takes}, not {self.parameters or 'none'}")
        if not 0 <= self.resample < max(self.k, 2):
            raise ValueError(f"resample must lie between 0 (all draws) and k − 1 = {self.k - 1}, not {self.resample}")
        if not row.through_density and not self.bound.smooth:
            raise ValueError(
                f"{self.gradient} needs a bound with a second derivative, which {self.bound.title} has not: use exact"
            )
        if row.objective not in (None, self.bound.name):
            only = OBJECTIVES[row.objective].title
            raise ValueError(f"{self.gradient} trains the decoder on {only}, not on {self.bound.title}")
        if row.parameters:
            if self.resample:
                raise ValueError(
                    f"{self.gradient} cannot be resampled: draws that {self.bound.title} hardly weighs matter to its "
                    "encoder"
                )
            values = [p.checked(f"{row.title}: {name}", self.parameters[name]) for name, p in row.parameters.items()]
            if math.prod(values) != self.k:
                names, factors = ("·".join(map(str, each)) for each in (row.parameters, values))
                raise ValueError(f"{row.title}: {names} must equal k = {self.k}, not {factors} = {math.prod(values)}")

    @property
    def biased(self) -> bool:
        """Whether the mean of the encoder's gradient is not the gradient of the bound (stl, k > 1, unequal weights)."""
        return GRADIENTS[self.gradient].biased and self.k > 1 and not self.bound.equal_weights

    def __call__(
        self, model: Model, x: Tensor, generator: torch.Generator, encoder_input: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Sample]:
        """(loss, bound, sample) for images x [batch, pixels], of which the encoder gets ``encoder_input`` (or x).

        Raises ValueError for images that the model does not take (``Model.check_images``).

        ``loss.backward()`` leaves −∇ of the mean bound in the model's gradients, by this estimator; ``bound``
        [batch] is the bound itself, detached; ``sample`` the k draws it came from.
        """
        x = model.check_images(x)
        return self.with_noise(model, x, self.noise(model, len(x), generator), encoder_input)

    def noise(self, model: Model, batch: int, generator: torch.Generator) -> Noise:
        """What a call draws for so many images."""
        normal = model.noise(self.k, batch, generator)
        if not self.resample:
            return Noise(normal, normal[0].new_empty(batch, 0))
        return Noise(normal, torch.rand(batch, self.resample, generator=generator, device=normal[0].device))

    def with_noise(
        self, model: Model, x: Tensor, given: Noise, encoder_input: Tensor | None = None, kl_share: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor, Sample]:
        """As a call, with given randomness and images that have been checked.

        The gradient is that of the bound with ``kl_share`` of its own weight of the KL (a KL warm-up); the bound that
        is returned has all of it.
        """
        encoder_input, kl_weight = x if encoder_input is None else encoder_input, kl_share * self.bound.kl_weight
        chosen, drawn = self.choose(model, x, encoder_input, given, kl_weight)
        loss, sample = self.backward(model, x, encoder_input, chosen, kl_weight)
        sample = drawn or sample
        return loss, self.bound(sample.log_weights(self.bound.kl_weight).detach()), sample

    def choose(
        self,
        model: Model,
        x: Tensor,
        encoder_input: Tensor,
        given: Noise,
        kl_weight: float | Tensor,
        encoded: Gaussian | None = None,
    ) -> tuple[Chosen, Sample | None]:
        """The draws that go backward, and all k draws where they had to be made for that, without a graph. ``encoded``
        is ``model.encode_first(encoder_input)``, where that is known."""
        if not self.resample:
            return Chosen(given.normal, None), None
        with torch.no_grad():
            sample = model.sample(x, noise=given.normal, encoder_input=encoder_input, encoded=encoded, checked=True)
        weights = self.weights(sample.log_weights(kl_weight), kl_weight)
        index = draw(weights.decoder, given.uniform)
        ratio = (weights.encoder / weights.decoder.clamp_min(SMALLEST_WEIGHT)).gather(0, index)
        normal = tuple(eps.gather(0, index.unsqueeze(-1).expand(-1, -1, eps.shape[-1])) for eps in given.normal)
        return Chosen(normal, Weights(torch.full_like(ratio, 1 / self.resample), ratio / self.resample)), sample

    def weights(self, log_w: Tensor, kl_weight: float | Tensor = 1.0) -> Weights:
        """c and d of the module's docstring for these log-weights [k, batch], whose KL part has this weight."""
        return GRADIENTS[self.gradient].weights(self.bound, log_w.detach(), kl_weight, **self.parameters)

    def backward(
        self, model: Model, x: Tensor, encoder_input: Tensor, chosen: Chosen, kl_weight: float | Tensor
    ) -> tuple[Tensor, Sample]:
        """The loss of a call, from the draws that go backward; its value means nothing, its gradient is −∇ of the mean
        bound by this estimator."""
        encoded = model.encode_first(encoder_input)
        h, log_qh = model.sample_posterior(encoder_input, chosen.normal, encoded=encoded)
        if not GRADIENTS[self.gradient].through_density:
            log_qh = model.log_q(encoder_input, h, detached=True, encoded=encoded)
        below = tuple(layer.view_as(layer) for layer in h)  # h as log p(x, h) sees it
        sample = Sample(*model.log_joint(x, below, checked=True), log_qh, h)
        weights = chosen.weights or self.weights(sample.log_weights(kl_weight), kl_weight)
        if weights.encoder is not weights.decoder:
            # log p's gradient arrives at h weighted by c, for the sake of θ; on its way to φ it becomes d
            ratio = (weights.encoder / weights.decoder.clamp_min(SMALLEST_WEIGHT)).unsqueeze(-1)
            for layer in below:
                layer.register_hook(lambda grad: grad * ratio)
        log_p = sample.log_px + kl_weight * sample.log_ph
        surrogate = weights.decoder * log_p - kl_weight * weights.encoder * log_qh
        return -surrogate.sum() / len(x), sample  # the one change of sign: bounds go up, losses go down
