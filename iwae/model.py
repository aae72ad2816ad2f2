"""Variational autoencoders with any number L of stochastic layers.

    q(h|x) = q(h₁|x) q(h₂|h₁) … q(h_L|h_L₋₁)          diagonal Gaussians
    p(x,h) = p(h_L) p(h_L₋₁|h_L) … p(h₁|h₂) p(x|h₁)    standard normal, diagonal Gaussians, a likelihood of the pixels

The decoder mirrors the encoder. Axis order is draws, batch, features. Log-densities are in nats per image.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iwae import likelihoods
from iwae.kernels import conv, precision
from iwae.kernels.layers import ACTIVATIONS, are_standard, as_function, hidden_layers, unchanged
from iwae.latent_model import Gaussian, LatentModel, Sample, UnitMask
from iwae.likelihoods import Likelihood
from iwae.model_config import PRESETS, ModelConfig
from iwae.shapes import shape_text

__all__ = [
    "Model", "ModelConfig", "PRESETS", "LatentModel", "Sample", "UnitMask", "Gaussian", "StochasticLayer",
    "log_normal", "log_standard", "to_float64", "LOG_2PI",
]  # fmt: skip

LOG_2PI = math.log(2 * math.pi)


class StochasticLayer(nn.Module):
    """Hidden layers, which may begin with convolutions of these ``maps``, the inputs' first; then the mean and log
    standard deviation of a diagonal Gaussian."""

    def __init__(
        self,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        activation: str = "tanh",
        maps: tuple[conv.Map, ...] = (),
    ):
        super().__init__()
        self.hidden = hidden_layers(math.prod(maps[-1]) if maps else inputs, hidden, activation)
        if maps:
            self.hidden.insert(0, conv.down(maps, ACTIVATIONS[activation]))
        self.mean = precision.Linear(hidden[-1], outputs)
        self.log_std = precision.Linear(hidden[-1], outputs)

    def forward(self, below: Tensor) -> Gaussian:
        features = self.hidden(below)
        return self.mean(features), self.log_std(features)

    def detached(self, below: Tensor) -> Gaussian:
        """As ``forward``, with weights that no gradient reaches."""
        if not are_standard(self.hidden, self.mean, self.log_std):
            mean, log_std = as_function(self, below)
            return mean, log_std
        features = below
        for layer in self.hidden:
            features = _detached_linear(layer, features) if isinstance(layer, nn.Linear) else layer(features)
        return _detached_linear(self.mean, features), _detached_linear(self.log_std, features)


class Model(nn.Module):
    """A VAE; what makes it an IWAE is the bound it is trained on.

    Weights are Glorot-uniform from ``seed``, biases zero, and the output bias is the likelihood's own for
    ``pixel_mean``, the mean of the training images [pixels], or zero without it. With ``seed=None`` the weights are
    left as they come, for a caller who is about to replace them.
    """

    def __init__(self, config: ModelConfig, *, pixel_mean: Tensor | None = None, seed: int | None = 0):
        super().__init__()
        self.config = config
        below = (config.pixels, *config.latent)
        layers = list(zip(below, config.hidden, config.latent, strict=False))
        maps = config.feature_maps if config.convolutions else ()
        self.encoder = nn.ModuleList(
            StochasticLayer(*sizes, config.activation, () if layer else maps) for layer, sizes in enumerate(layers)
        )
        self.decoder = nn.ModuleList(
            StochasticLayer(top, hidden[::-1], bottom, config.activation) for bottom, hidden, top in layers[1:]
        )  # decoder[i] is p(h[i] | h[i+1])
        backwards = config.hidden[0][::-1]
        per_pixel = self.likelihood.per_pixel
        if maps:
            self.pixel_hidden = hidden_layers(config.latent[0], (*backwards, math.prod(maps[-1])), config.activation)
            self.pixel_hidden.append(conv.up(maps[1:], ACTIVATIONS[config.activation]))
            self.pixel_logits = conv.Pixels(maps[1], (per_pixel, *config.shape))
        else:
            self.pixel_hidden = hidden_layers(config.latent[0], backwards, config.activation)
            self.pixel_logits = precision.Linear(backwards[-1], config.pixels * per_pixel)
        if seed is not None:
            self._initialise(pixel_mean, torch.Generator().manual_seed(seed))

    def __repr__(self) -> str:
        weights = sum(weight.numel() for weight in self.parameters())
        place = f"{str(self._weight.dtype).removeprefix('torch.')} on {self.device}"
        return f"Model({self.config}, {shape_text(self.config.shape)} pixels, {weights:,} weights, {place})"

    def _initialise(self, pixel_mean: Tensor | None, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if pixel_mean is not None:
            with torch.no_grad():
                self.pixel_logits.bias.copy_(self.likelihood.initial_bias(pixel_mean))

    @property
    def _weight(self) -> Tensor:
        """One of its weights, whose device and dtype are those of all."""
        return next(self.parameters())

    @property
    def likelihood(self) -> Likelihood:
        """p(x|h) of its config."""
        return likelihoods.find(self.config.likelihood)

    @property
    def device(self) -> torch.device:
        return self._weight.device

    def check_images(self, x: Any, count: int | None = None) -> Tensor:
        """Images as this model takes them: [n, pixels] of what its likelihood is for, with its device and dtype.

        For what x may be, and the ValueError for anything else, see ``iwae.inputs``. Every public function
        that is given images calls it, once; loops inside them say ``checked=True``.
        """
        return self.likelihood.check_images(x, self.config.shape, self._weight, count)

    def nonstandard(self) -> str | None:
        """The name of a module that is not what the constructor makes of ``config``, and how it differs; None where
        all are. Such a model computes, but cannot be kept in a checkpoint."""
        with torch.device("meta"):
            made = Model(self.config, seed=None)
        if not unchanged(self, Model):
            return f"the model is a {type(self).__name__}, or has hooks or a forward of its own"
        own, wanted = (dict(model.named_modules()) for model in (self, made))
        for name in [*wanted, *(name for name in own if name not in wanted)]:
            if name not in own or name not in wanted:
                return f"module {name!r} is {'missing or shared' if name in wanted else 'one more'}"
            if not unchanged(own[name], type(wanted[name])):
                return f"module {name!r} is a {type(own[name]).__name__}, or has hooks or a forward of its own"
        found, expected = ({(name, w.shape) for name, w in model.state_dict().items()} for model in (self, made))
        for name, shape in sorted(found ^ expected):
            return f"tensor {name!r} has the shape {list(shape)}, or should have"
        return None

    def noise(self, k: int, batch: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """Standard normal draws for every stochastic layer: [k, batch, latent[l]] each."""
        like = self._weight
        return tuple(
            torch.randn(k, batch, size, generator=generator, device=like.device, dtype=like.dtype)
            for size in self.config.latent
        )

    def sample(
        self,
        x: Tensor,
        k: int = 1,
        *,
        generator: torch.Generator | None = None,
        noise: tuple[Tensor, ...] | None = None,
        unit_masks: tuple[UnitMask, ...] | None = None,
        encoder_input: Tensor | None = None,
        encoded: Gaussian | None = None,
        checked: bool = False,
    ) -> Sample:
        """Draw k times from q(h|x) for images x [batch, pixels], by ``generator`` or from given
        ``noise``.

        ``encoder_input`` [batch, pixels] is what the encoder gets instead of x: any q is a proposal for p(h|x).
        ``encoded`` is ``encode_first`` of it, for a caller who draws several times.
        ``unit_masks`` drop units: these are held at a constant and counted neither in log p nor in log q, so that
        log_w stays an exact importance weight of the smaller model.

        Raises ValueError for other images (``check_images``); ``checked`` says that x has come from there.
        """
        if not checked:
            x = self.check_images(x)
        if noise is None:
            noise = self.noise(k, len(x), generator)
        h, log_qh = self.sample_posterior(x if encoder_input is None else encoder_input, noise, unit_masks, encoded)
        log_px, log_ph = self.log_joint(x, h, unit_masks, checked=True)
        return Sample(log_px, log_ph, log_qh, h)

    def encode_first(self, x: Tensor) -> Gaussian:
        """Mean and log standard deviation of q(h₁|x), [batch, latent[0]] each: the same for all draws of an image."""
        return self.encoder[0](x)

    def sample_posterior(
        self,
        x: Tensor,
        noise: tuple[Tensor, ...],
        unit_masks: tuple[UnitMask, ...] | None = None,
        encoded: Gaussian | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """h = mean + std·noise, layer by layer, and log q(h|x) [k, batch]. ``encoded`` is ``encode_first(x)``, where
        that is known."""
        below, h = x, []
        log_qh: Any = 0.0  # then [k, batch]
        for layer, (encoder, eps) in enumerate(zip(self.encoder, noise, strict=True)):
            mean, log_std = encoded if encoded and layer == 0 else encoder(below)
            below = torch.addcmul(mean, log_std.exp(), eps)
            mask = None
            if unit_masks:
                mask = unit_masks[layer].mask
                below = torch.where(mask > 0, below, unit_masks[layer].value)
            log_qh = log_qh + log_standard(eps, log_std, mask)
            h.append(below)
        return tuple(h), log_qh

    def log_q(
        self, x: Tensor, h: tuple[Tensor, ...], *, detached: bool = False, encoded: Gaussian | None = None
    ) -> Tensor:
        """log q(h|x) [..., batch] of given h. ``detached``: as a function of h alone, so that no gradient reaches the
        encoder's weights. ``encoded`` is ``encode_first(x)``, where that is known."""
        mean, log_std = encoded or self.encode_first(x)
        log_qh = log_normal(h[0], mean.detach(), log_std.detach()) if detached else log_normal(h[0], mean, log_std)
        for encoder, below, above in zip(self.encoder[1:], h, h[1:], strict=False):
            found = (
                encoder(below) if not detached else getattr(encoder, "detached", partial(as_function, encoder))(below)
            )
            log_qh = log_qh + log_normal(above, *found)
        return log_qh

    def log_joint(
        self,
        x: Tensor,
        h: tuple[Tensor, ...],
        unit_masks: tuple[UnitMask, ...] | None = None,
        pixel_mask: Tensor | None = None,
        checked: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """log p(x|h₁) and log p(h), each [k, batch]; with ``pixel_mask`` [pixels], of the pixels alone where it is
        true. x and ``checked`` as for ``sample``."""
        if not checked:
            x = self.check_images(x)
        masks = [layer.mask for layer in unit_masks] if unit_masks else [None] * len(h)
        log_ph = log_standard(h[-1], mask=masks[-1])
        for decoder, below, above, mask in zip(self.decoder, h, h[1:], masks, strict=False):
            mean, log_std = decoder(above)
            log_ph = log_ph + log_normal(below, mean, log_std, mask)
        return self.log_likelihood(x, h[0], pixel_mask, checked=True), log_ph

    def log_likelihood(
        self, x: Tensor, h1: Tensor, pixel_mask: Tensor | None = None, *, checked: bool = False
    ) -> Tensor:
        """log p(x|h₁) [k, batch] of images x [batch, pixels], or of the pixels where ``pixel_mask`` [pixels] is true.

        The others need no more than to be left out: given h₁ the pixels are independent, so they integrate to 1.
        x and ``checked`` as for ``sample``.
        """
        if not checked:
            x = self.check_images(x)
        own = type(self).logits is not Model.logits or "logits" in vars(self)
        standard = not own and are_standard(self.pixel_hidden, self.pixel_logits)
        likelihood = self.likelihood
        if pixel_mask is None:
            if standard and h1.device.type == "cpu":
                linears: list[Any] = [*list(self.pixel_hidden)[0::2], self.pixel_logits]
                if (log_px := likelihood.fused_log_prob(x, h1, linears)) is not None:
                    return log_px
            return likelihood.log_prob(x, self.logits(h1))
        chosen = pixel_mask.repeat(likelihood.per_pixel)
        if not standard:
            return likelihood.log_prob(x[:, pixel_mask], self.logits(h1)[..., chosen])
        last: Any = self.pixel_logits  # a linear layer
        weight, bias = last.weight[chosen], last.bias[chosen]
        return likelihood.log_prob(x[:, pixel_mask], F.linear(self.pixel_hidden(h1), weight, bias))

    def logits(self, h1: Tensor) -> Tensor:
        """What the decoder says of the pixels to the likelihood: for Bernoulli pixels their logits, [..., pixels]."""
        return self.pixel_logits(self.pixel_hidden(h1))

    def ancestral_sample(self, top: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """h₁ from the top layer's h_L: every layer between is drawn, or without a generator set to its mean."""
        return self.ancestral_layers(top, generator)[0]

    def ancestral_layers(self, top: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """All of (h₁, …, h_L), as ``ancestral_sample`` goes through them."""
        h = [top]
        for decoder in reversed(self.decoder):
            below, log_std = decoder(h[0])
            if generator is not None:
                noise = torch.randn(below.shape, generator=generator, device=below.device, dtype=below.dtype)
                below = below + log_std.exp() * noise
            h.insert(0, below)
        return tuple(h)

    def decode(self, h1: Tensor) -> Tensor:
        """E[x|h₁], [..., pixels]: of binary pixels their probabilities."""
        return self.likelihood.mean(self.logits(h1))


def _detached_linear(linear: nn.Linear, below: Tensor) -> Tensor:
    return precision.linear(below, linear.weight.detach(), linear.bias.detach())


def to_float64(tensor: Tensor) -> Tensor:
    """In float64, for long sums; as it is on MPS, which has no float64."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def log_normal(value: Tensor, mean: Tensor, log_std: Tensor, mask: Tensor | None = None) -> Tensor:
    """Σ log N(value; mean, std²) over the last axis, or over its units where ``mask`` is 1."""
    return log_standard((value - mean) * (-log_std).exp(), log_std, mask)


def log_standard(z: Tensor, log_std: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Σ log N(mean + std·z; mean, std²) over the last axis, or over its units where ``mask`` is 1; std is 1 if None."""
    units = z.shape[-1]
    if mask is not None:
        z, units = z * mask, mask.sum()
        log_std = log_std * mask if log_std is not None else None
    log_density = -0.5 * (z.square().sum(-1) + units * LOG_2PI)
    return log_density if log_std is None else log_density - log_std.sum(-1)
