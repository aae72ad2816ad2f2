"""Models from elsewhere, as whoever starts the server names them: ``IWAE_ADAPTERS=tests.foreign:pair``."""

from collections.abc import Mapping

import torch
from torch import nn

from iwae import adapters
from iwae.model import Model, ModelConfig


class Encoder(nn.Module):
    """28×28 images → mean and log variance of ``latent`` units, by a convolution and batch normalization."""

    def __init__(self, latent: int):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, 4, 1), nn.BatchNorm2d(4), nn.ELU(), nn.Flatten())
        self.mean, self.log_var = nn.Linear(196, latent), nn.Linear(196, latent)

    def forward(self, x):
        features = self.features(x)
        return self.mean(features), self.log_var(features)


def decoder(latent: int) -> nn.Module:
    """… → probabilities."""
    up = nn.ConvTranspose2d(4, 1, 4, 4)
    return nn.Sequential(nn.Linear(latent, 196), nn.ELU(), nn.Unflatten(1, (4, 7, 7)), up, nn.Sigmoid())


def wrapped(latent: int, title: str) -> adapters.WrappedModel:
    """Untrained networks."""
    torch.manual_seed(0)
    sizes = {"latent": latent, "shape": (28, 28), "log_var": True, "probabilities": True}
    return adapters.wrap(Encoder(latent), decoder(latent), title=title, **sizes)


def pair() -> dict[str, Model]:
    return {"conv VAE": wrapped(2, "not used"), "conv IWAE": wrapped(3, "nor this")}


def one() -> Model:
    return wrapped(2, "A titled VAE")


def plain() -> Model:
    return Model(ModelConfig(hidden=((6,),), latent=(2,)))


def grey() -> Model:
    torch.manual_seed(0)
    decode = nn.Sequential(nn.Linear(2, 40), nn.Unflatten(1, (5, 8)))
    return adapters.wrap(Narrow(), decode, latent=2, shape=(5, 8), likelihood="gaussian-0.5", title="narrow")


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(40, 4)

    def forward(self, x):
        return self.out(x).chunk(2, -1)


def wide() -> Model:
    return Model(ModelConfig(hidden=((6,),), latent=(2,), shape=(65, 10)))


def nothing() -> dict[str, Model]:
    return {}


def network() -> nn.Module:
    return decoder(2)


def broken() -> Model:
    raise FileNotFoundError("no weights\nhere")


def picky() -> Model:
    """Its encoder refuses what has no ink."""

    class Inked(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(784, 4)

        def forward(self, x):
            if not x.flatten(1).any(1).all():
                raise RuntimeError("no ink")
            return self.out(x.flatten(1)).chunk(2, 1)

    return adapters.wrap(Inked(), nn.Linear(2, 784), latent=2, shape=(28, 28))


def half() -> Model:
    return plain().half()


class _Absent(Mapping):
    def __getitem__(self, name):
        raise KeyError(name)

    def __iter__(self):
        return iter(["a"])

    def __len__(self):
        return 1


def unreadable() -> Mapping[str, Model]:
    return _Absent()


def leaves() -> Model:
    raise SystemExit("usage")


def markup() -> dict[str, Model]:
    return {"![x](http://y)": plain()}
