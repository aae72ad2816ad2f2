"""A VAE or IWAE that pythae has saved, from ``model_config.json`` and the weights in ``model.pt`` alone.

pythae (Chadebec, Vincent & Allassonnière 2022) need not be installed: its networks are built here, and its weights have
the same names in them. Networks that its user wrote are saved as pickled code beside them, ``encoder.pkl`` and
``decoder.pkl``; those files are never opened.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from iwae.adapters.wrapping import AdapterError, wrap
from iwae.model import Model, ModelConfig
from iwae.shapes import checked_shape, shape_text
from iwae.system import untrusted
from iwae.system.files import printable
from iwae.system.untrusted import UntrustedError

KINDS = {
    "VAEConfig": "VAE",
    "BetaVAEConfig": "β-VAE",
    "IWAEConfig": "IWAE",
}  # of model_config.json; all alike but for k
LIKELIHOODS = {"bce": "bernoulli", "mse": "gaussian-1"}  # by pythae's name of the loss
MLP = 512  # hidden units of its default networks
MAX_CONFIG = 100_000  # bytes

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class _Saved:
    """What counts of a model_config.json."""

    name: str
    latent_dim: int
    input_dim: tuple[int, ...]
    reconstruction_loss: Literal["bce", "mse"] = "mse"
    number_samples: int = 1

    def shape(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """Rows and columns of an image."""
        *channels, rows, columns = (1, 1, *self.input_dim)
        if not self.input_dim or min(self.input_dim) < 1:
            raise AdapterError(f"input_dim {list(self.input_dim)} must be whole numbers above 0: (1, rows, columns)")
        if math.prod(channels) != 1:
            raise AdapterError(
                f"images of input_dim {list(self.input_dim)} are not grey: it must be (1, rows, columns)"
            )
        pixels = rows * columns
        side = math.isqrt(pixels)
        if wanted is None:
            wanted = (side, side) if rows == 1 and side**2 == pixels else (rows, columns)
        if math.prod(checked_shape(wanted)) != pixels:
            raise AdapterError(f"images of {shape_text(wanted)} pixels do not have the {pixels:,} of this model")
        return wanted


class _PythaeEncoder(nn.Module):
    """x → mean and log variance."""

    def __init__(self, layers: list[nn.Module], features: int, latent: int):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.embedding, self.log_var = nn.Linear(features, latent), nn.Linear(features, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = layer(x)
        features = x.flatten(1)
        return self.embedding(features), self.log_var(features)


class _PythaeDecoder(nn.Module):
    """h → what ends in a sigmoid; ``maps`` is the shape of what the first layer returns, where that is no vector."""

    def __init__(self, layers: list[nn.Module], maps: tuple[int, ...] = ()):
        super().__init__()
        self.layers, self.maps = nn.ModuleList(layers), maps

    def forward(self, h: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers):
            h = layer(h)
            h = h.unflatten(1, self.maps) if self.maps and place == 0 else h
        return h


class _Residual(nn.Module):
    def __init__(self, channels: int = 128, inner: int = 32):
        super().__init__()
        first, second = nn.Conv2d(channels, inner, 3, padding=1), nn.Conv2d(inner, channels, 1)
        self.conv_block = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def _mlp_encoder(latent: int, pixels: int) -> nn.Module:
    return _PythaeEncoder([nn.Sequential(nn.Linear(pixels, MLP), nn.ReLU())], MLP, latent)


def _mlp_decoder(latent: int, pixels: int) -> nn.Module:
    hidden, last = nn.Sequential(nn.Linear(latent, MLP), nn.ReLU()), nn.Linear(MLP, pixels)
    return _PythaeDecoder([hidden, nn.Sequential(last, nn.Sigmoid())])


def _conv_encoder(latent: int, pixels: int) -> nn.Module:
    channels = (1, 128, 256, 512, 1024)
    layers = [
        nn.Sequential(nn.Conv2d(below, above, 4, 2, 1), nn.BatchNorm2d(above), nn.ReLU())
        for below, above in pairwise(channels)
    ]
    return _PythaeEncoder([*layers], channels[-1], latent)


def _conv_decoder(latent: int, pixels: int) -> nn.Module:
    return _PythaeDecoder(
        [
            nn.Linear(latent, 1024 * 16),
            nn.Sequential(nn.ConvTranspose2d(1024, 512, 3, 2, 1), nn.BatchNorm2d(512), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(512, 256, 3, 2, 1, output_padding=1), nn.BatchNorm2d(256), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(256, 1, 3, 2, 1, output_padding=1), nn.Sigmoid()),
        ],
        (1024, 4, 4),
    )


def _residual_encoder(latent: int, pixels: int) -> nn.Module:
    down = [nn.Conv2d(1, 64, 4, 2, 1), nn.Conv2d(64, 128, 4, 2, 1), nn.Conv2d(128, 128, 3, 2, 1)]
    blocks = nn.Sequential(_Residual(), _Residual())
    return _PythaeEncoder([*map(nn.Sequential, down), blocks], 128 * 16, latent)


def _residual_decoder(latent: int, pixels: int) -> nn.Module:
    return _PythaeDecoder(
        [
            nn.Linear(latent, 128 * 16),
            nn.ConvTranspose2d(128, 128, 3, 2, 1),
            nn.Sequential(_Residual(), _Residual(), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(128, 64, 3, 2, 1, output_padding=1), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(64, 1, 3, 2, 1, output_padding=1), nn.Sigmoid()),
        ],
        (128, 4, 4),
    )


Builder = Callable[[int, int], nn.Module]
ENCODERS: tuple[Builder, ...] = (_mlp_encoder, _conv_encoder, _residual_encoder)  # the default, and those of its
DECODERS: tuple[Builder, ...] = (_mlp_decoder, _conv_decoder, _residual_decoder)  # pythae.models.nn.benchmarks.mnist


def pythae(folder: str | Path, shape: tuple[int, int] | None = None) -> Model:
    """The model in a folder that pythae's ``model.save(folder)`` has written.

    Its VAE, β-VAE or IWAE, with its default MLPs or with the convolutional or residual networks that it has for MNIST
    (``pythae.models.nn.benchmarks.mnist``). p(x|h) is Bernoulli for the loss ``bce``, and N(x; decoded, 1) for ``mse``,
    as in pythae's own ``get_nll``. The default networks under ``bce`` are a ``Model`` like those of this package, which
    can be saved as a checkpoint; all others are a ``WrappedModel``.

    Args:
        folder: with ``model_config.json`` and ``model.pt``. Nothing else in it is read, and no code is unpickled.
        shape: rows and columns of an image, where the model takes them flat and they are not square.

    Raises AdapterError for files that are absent or damaged, other models of pythae, other networks and colours.
    """
    folder = Path(folder)
    saved = _read_config(folder / "model_config.json")
    rows_columns, title = saved.shape(shape), KINDS[saved.name]
    weights = _read_weights(folder / "model.pt")
    pixels, parts = math.prod(rows_columns), {}
    for name, builders in (("encoder", ENCODERS), ("decoder", DECODERS)):
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        parts[name] = _build(folder, name, builders, own, saved.latent_dim, pixels)
    if others := [key for key in weights if not key.startswith(("encoder.", "decoder."))]:
        raise AdapterError(f"{folder}: model.pt holds {printable(others[0])!r}, which is not part of a {title}")
    encoder, decoder = parts["encoder"], parts["decoder"]
    likelihood = LIKELIHOODS[saved.reconstruction_loss]
    if likelihood == "bernoulli" and len(encoder.layers) == 1 and len(decoder.layers) == 2:
        return _as_model(encoder, decoder, saved.latent_dim, rows_columns)
    title += f" k = {saved.number_samples}" if title == "IWAE" else ""
    sizes = {"latent": saved.latent_dim, "shape": rows_columns, "log_var": True, "title": f"{title} of pythae"}
    return wrap(encoder, decoder, likelihood=likelihood, probabilities=likelihood == "bernoulli", **sizes)


def _read_config(path: Path) -> _Saved:
    try:
        content = path.read_bytes()
        if len(content) > MAX_CONFIG:
            raise AdapterError(f"{path} has {len(content):,} bytes; at most {MAX_CONFIG:,} are read")
        saved = untrusted.decode(content, _Saved)
    except (OSError, UntrustedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AdapterError(f"{path} is not a valid model_config.json of pythae: {reason}") from None
    if saved.name not in KINDS:
        known = ", ".join(KINDS)
        raise AdapterError(f"{path} describes a {printable(saved.name)!r}; only {known} can be read")
    return saved


def _read_weights(path: Path) -> Weights:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of a damaged file nearly every type
        reason = printable(str(error).partition("\n")[0], 200)
        raise AdapterError(
            f"{path} is damaged or holds more than tensors, and no code is unpickled: {reason}"
        ) from None
    found = found.get("model_state_dict") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise AdapterError(f"{path} has no tensors under 'model_state_dict'")
    for name, value in found.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise AdapterError(f"{path}: {printable(name)} is {value.dtype}, and weights must be float32")
        if not value.isfinite().all():
            raise AdapterError(f"{path}: {printable(name)} holds values that are not finite")
    return {str(name): value for name, value in found.items()}


def _build(
    folder: Path, name: str, builders: tuple[Builder, ...], weights: Weights, latent: int, pixels: int
) -> nn.Module:
    """The network that these weights fit."""
    shapes = {key: value.shape for key, value in weights.items()}
    for builder in builders:
        with torch.device("meta"):
            network = builder(latent, pixels)
        if {key: value.shape for key, value in network.state_dict().items()} == shapes:
            network.load_state_dict(weights, assign=True)
            return network
    pickled = folder / f"{name}.pkl"
    why = f"; its code is in {pickled.name}, which is never unpickled" if pickled.exists() else ""
    raise AdapterError(
        f"{folder}: its {name} is none of the networks that pythae brings along{why}. Load it by pythae itself, and "
        "give both networks to iwae.adapters.wrap (docs/your-model.md)"
    )


def _as_model(encoder: nn.Module, decoder: nn.Module, latent: int, shape: tuple[int, int]) -> Model:
    """A ``Model`` with the weights of pythae's default networks, which are of the same kind."""
    model = Model(ModelConfig(hidden=((MLP,),), latent=(latent,), shape=shape, activation="relu"), seed=None)
    theirs, ours = (
        [module for network in (encoder, decoder) for module in network.modules() if isinstance(module, nn.Linear)],
        [module for module in model.modules() if isinstance(module, nn.Linear)],
    )
    for one, other in zip(ours, theirs, strict=True):
        one.load_state_dict(other.state_dict())
    with torch.no_grad():
        for weight in model.get_submodule("encoder.0.log_std").parameters():
            weight.mul_(0.5)  # log σ = log σ² / 2
    return model
