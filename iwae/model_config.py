"""What a model is made of: sizes of its layers, shape of its images, likelihood and activation function."""

import math
import re
from dataclasses import dataclass, replace

from iwae import likelihoods
from iwae.kernels import conv
from iwae.kernels.layers import ACTIVATIONS
from iwae.shapes import checked_shape

MAX_LAYERS = 100  # of units, hidden and stochastic; a hostile file could name a million
MAX_CONVOLUTIONS, MAX_CHANNELS = 6, 512  # which bring 64 rows to 1; and so many feature maps of each


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model, layer by layer from the pixels upwards, the shape of its images, its likelihood and its
    activation function. Raises ValueError for sizes that cannot be and for unknown names."""

    hidden: tuple[tuple[int, ...], ...] = ((200, 200),)  # units between one stochastic layer and the next
    latent: tuple[int, ...] = (50,)  # units of each stochastic layer
    shape: tuple[int, int] = (28, 28)  # of an image: rows, columns
    likelihood: str = "bernoulli"  # of the pixels, a name in likelihoods.py
    activation: str = "tanh"  # of the hidden units: tanh, relu, silu or gelu
    convolutions: tuple[int, ...] = ()  # channels of each, between the pixels and the first hidden layer

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(tuple(sizes) for sizes in self.hidden))  # lists, from JSON
        object.__setattr__(self, "latent", tuple(self.latent))
        object.__setattr__(self, "convolutions", tuple(self.convolutions))
        object.__setattr__(self, "shape", checked_shape(self.shape))
        if not self.latent or len(self.hidden) != len(self.latent):
            raise ValueError(
                "a model needs at least one stochastic layer, and hidden and latent sizes for each: "
                f"not hidden {self.hidden} with latent {self.latent}"
            )
        sizes = [self.pixels, *self.latent, *(size for layer in self.hidden for size in layer)]
        if len(sizes) > MAX_LAYERS:
            raise ValueError(f"a model has at most {MAX_LAYERS} layers, not {len(sizes):,}")
        if not all(isinstance(size, int) and 0 < size <= 100_000 for size in sizes):
            raise ValueError(f"every size must be a whole number from 1 to 100,000: {self}")
        if not all(self.hidden):
            raise ValueError(f"every stochastic layer needs at least one hidden layer: {self.hidden}")
        channels = self.convolutions
        if len(channels) > MAX_CONVOLUTIONS or not all(type(c) is int and 0 < c <= MAX_CHANNELS for c in channels):
            raise ValueError(
                f"there are at most {MAX_CONVOLUTIONS} convolutions, of 1 to {MAX_CHANNELS} channels: not {channels}"
            )
        likelihoods.find(self.likelihood)
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; there are {', '.join(ACTIVATIONS)}")

    @property
    def pixels(self) -> int:
        """Of an image."""
        return math.prod(self.shape)

    @property
    def feature_maps(self) -> tuple[conv.Map, ...]:
        """Channels, rows and columns of the image and of what each convolution makes of it."""
        return conv.feature_maps(self.shape, self.convolutions)

    @property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """``hidden``, with the features of every convolution before the first hidden layer."""
        first, *others = self.hidden
        return ((*map(math.prod, self.feature_maps[1:]), *first), *others)

    @classmethod
    def parse(cls, text: str) -> "ModelConfig":
        """A preset's name, or sizes: ``hidden,hidden:latent`` for each layer, joined by ``/``.

        ``200,200:100/100,100:50`` is the preset ``2layer``. Convolutions stand first, as numbers of channels with a
        ``c``: ``16c,32c,100:50`` is ``conv``. ``@`` and its name stand before another likelihood than
        ``bernoulli`` and another activation than ``tanh``: ``2layer@gaussian@relu``. Raises ValueError for anything
        else.
        """
        sizes, *names = text.split("@")
        if names:
            options = {"activation" if name in ACTIVATIONS else "likelihood": name for name in names}
            if len(options) < len(names):
                raise ValueError(f"model {text!r} names two likelihoods or two activations")
            return replace(cls.parse(sizes), **options)
        if text in PRESETS:
            return PRESETS[text]
        found = re.fullmatch(r"((?:\d+c,)*)(\d+(,\d+)*:\d+(/\d+(,\d+)*:\d+)*)", text, re.ASCII)
        if not found:
            raise ValueError(
                f"model {text!r} is neither one of {', '.join(PRESETS)} nor sizes like 200,200:100/100,100:50 "
                "or 16c,32c,100:50"
            )
        channels = tuple(int(count) for count in re.findall(r"\d+", found[1]))
        layers = [layer.split(":") for layer in found[2].split("/")]
        hidden = tuple(tuple(int(size) for size in sizes.split(",")) for sizes, _ in layers)
        return cls(hidden=hidden, latent=tuple(int(size) for _, size in layers), convolutions=channels)

    def __str__(self) -> str:
        names = {"likelihood": self.likelihood, "activation": self.activation}
        at = "".join(f"@{name}" for kind, name in names.items() if name != getattr(type(self), kind))
        for name, preset in PRESETS.items():
            if self == replace(self, hidden=preset.hidden, latent=preset.latent, convolutions=preset.convolutions):
                return name + at
        layers = zip(self.hidden, self.latent, strict=True)
        sizes = "/".join(f"{','.join(map(str, hidden))}:{latent}" for hidden, latent in layers)
        return "".join(f"{channels}c," for channels in self.convolutions) + sizes + at


PRESETS = {
    "1layer": ModelConfig(),
    "2layer": ModelConfig(hidden=((200, 200), (100, 100)), latent=(100, 50)),
    "2d": ModelConfig(latent=(2,)),  # for pictures of the latent plane
    "conv": ModelConfig(hidden=((100,),), convolutions=(16, 32)),
}
