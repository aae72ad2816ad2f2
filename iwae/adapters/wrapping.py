"""A pair of networks, an encoder and a decoder that somebody else has trained, as a ``Model``.

    q(h|x) = N(mean(x), diag σ²(x))     by the encoder
    p(x, h) = N(h; 0, I) p(x|h)         by the decoder and a likelihood of iwae.likelihoods

They are tried on a few images first: what does not fit is an AdapterError, with what was found and what is needed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from iwae import likelihoods
from iwae.likelihoods import Likelihood
from iwae.model import Model, ModelConfig
from iwae.shapes import shape_text
from iwae.system.files import printable

TRIED = 3  # images that both networks are tried on
LARGEST_LOGIT = 100.0  # of a probability that is 0 or 1, whose logarithm binary_cross_entropy takes for −100
TITLE = re.compile(r"[\w .,=+()-]{1,40}")  # no markup on a page


class AdapterError(ValueError):
    """Networks or files that make no model; the message says what was found and what is needed."""


def check_title(title: Any) -> None:
    """Raise AdapterError for what no model can be called."""
    if not isinstance(title, str) or not TITLE.fullmatch(title) or title != printable(title):
        raise AdapterError(f"a title has 1 to 40 letters, digits, spaces and .,=+-()_, not {printable(title)!r}")


@dataclass(frozen=True)
class WrappedConfig(ModelConfig):
    """Sizes of a model whose networks are somebody else's: all that is known of their layers is what they cost."""

    hidden: tuple[tuple[int, ...], ...] = ((1,),)  # not known
    multiply_adds: int = 0  # for one image, of the network that needs more
    features: int = 0  # numbers that both networks compute for one image, as far as a gradient needs them

    @property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        return ((self.features,),)

    def __str__(self) -> str:
        return f"wrapped, {self.latent[0]} units" + f"@{self.likelihood}" * (self.likelihood != "bernoulli")


class WrappedModel(Model):
    """A model of ``wrap``: one stochastic layer between two networks. It cannot be kept in a checkpoint, which holds no
    code."""

    def __init__(self, config: WrappedConfig, encoder: nn.Module, pixels: nn.Module, title: str):
        nn.Module.__init__(self)
        self.config, self.title = config, title
        self.encoder, self.decoder = nn.ModuleList([encoder]), nn.ModuleList()
        self.pixel_outputs = pixels
        self.eval()

    def __repr__(self) -> str:
        weights = sum(weight.numel() for weight in self.parameters())
        sizes = f"{shape_text(self.config.shape)} pixels, {weights:,} weights"
        return f"WrappedModel({self.title}: {self.config}, {sizes}, on {self.device})"

    def logits(self, h1: Tensor) -> Tensor:
        return self.pixel_outputs(h1)

    def nonstandard(self) -> str:
        return "its networks are those that iwae.adapters.wrap was given"


def wrap(
    encode: nn.Module,
    decode: nn.Module,
    *,
    latent: int,
    shape: tuple[int, int],
    log_var: bool = False,
    likelihood: str = "bernoulli",
    probabilities: bool = False,
    title: str = "wrapped VAE",
) -> WrappedModel:
    """A ``Model`` of one stochastic layer from two networks. Their weights are not copied; both are put into evaluation
    mode, and must be in it when the model is used.

    Args:
        encode: gets images x [n, 1, h, w] or, if it does not take these, [n, h · w] or [n, h, w], and returns the pair
            (mean, log standard deviation) of q(h|x), [n, latent] each.
        decode: gets h [n, latent] and returns the parameters of p(x|h) for each pixel, [n, h · w], [n, h, w] or
            [n, 1, h, w]: for ``bernoulli`` and ``continuous-bernoulli`` logits, for ``gaussian-0.1`` means. For
            ``gaussian`` and ``discretized-logistic`` the pair (mean, log standard deviation or log scale) of such
            tensors, or both as [n, 2, h, w].
        latent: units of h.
        shape: rows h and columns w of an image.
        log_var: ``encode`` returns the log variance instead of the log standard deviation.
        likelihood: p(x|h), a name in ``iwae.likelihoods``.
        probabilities: ``decode`` returns probabilities instead of logits, as it does if it ends in a sigmoid. Those
            that float32 rounds to 0 or 1 count as in torch's ``binary_cross_entropy``: their log is −100 at least.
        title: how pages and messages call it: at most 40 letters, digits, spaces and ``.,=+-()_``. Where it
            says IWAE, figures show it in the IWAE's colour.

    Networks are called from several threads at once. Raises AdapterError for networks whose outputs have other shapes,
    are not finite or are not a function of each image alone, whose weights are not float32, and for settings that do
    not go together.
    """
    check_title(title)
    for name, network in (("encode", encode), ("decode", decode)):
        check_module(network, name)
        network.eval()
    try:
        config = WrappedConfig(latent=(latent,), shape=shape, likelihood=likelihood)
    except (TypeError, ValueError) as error:
        raise AdapterError(str(error)) from None
    rule = likelihoods.find(likelihood)
    if probabilities and not isinstance(rule, likelihoods.Bernoulli | likelihoods.ContinuousBernoulli):
        raise AdapterError(
            f"probabilities=True is for the likelihoods bernoulli and continuous-bernoulli: {likelihood}"
        )
    if not probabilities and isinstance(rule, likelihoods.Bernoulli) and isinstance(_last(decode), nn.Sigmoid):
        raise AdapterError("decode ends in nn.Sigmoid, so it returns probabilities, not logits: probabilities=True")
    encoder = _try_encoder(encode, config, log_var)
    pixels = _try_decoder(_Decoder(decode, config, rule, probabilities), config)
    model = WrappedModel(config, encoder, pixels, title)
    if len({weight.device for weight in model.state_dict().values()}) > 1:
        raise AdapterError("the weights of encode and decode lie on several devices: move both to one")
    x, h = _images(config, model.device), torch.zeros(TRIED, latent, device=model.device)
    costs = [_cost(encoder, x), _cost(pixels, h)]
    adds, kept = max(adds for adds, _ in costs), sum(kept for _, kept in costs)
    model.config = replace(config, multiply_adds=adds, features=kept)
    return model


class _Encoder(nn.Module):
    """Images x [n, pixels] → mean and log standard deviation of q(h|x), [n, latent] each."""

    def __init__(self, network: nn.Module, image: tuple[int, ...], latent: int, log_var: bool):
        super().__init__()
        self.network, self.image, self.latent, self.log_var = network, image, latent, log_var

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = _called(self.network, x.reshape(-1, *self.image), "encode")
        spread = "log variance" if self.log_var else "log standard deviation"
        needed = f"the pair (mean, {spread}), [{len(x)}, {self.latent}] each"
        if not isinstance(found, tuple | list) or [_shape(part) for part in found] != 2 * [[len(x), self.latent]]:
            raise AdapterError(f"encode must return {needed}, not {_described(found)}")
        mean, log_std = found
        return mean, log_std / 2 if self.log_var else log_std


class _Decoder(nn.Module):
    """h [..., latent] → what the likelihood needs, [..., pixels · per_pixel]."""

    def __init__(self, network: nn.Module, config: ModelConfig, likelihood: Likelihood, probabilities: bool):
        super().__init__()
        self.network, self.shape, self.likelihood, self.probabilities = network, config.shape, likelihood, probabilities

    def forward(self, h: Tensor) -> Tensor:
        rows = h.reshape(-1, h.shape[-1])
        outputs = self.read(_called(self.network, rows, "decode"), len(rows))
        outputs = logits(outputs) if self.probabilities else self.likelihood.outputs(outputs)
        return outputs.reshape(*h.shape[:-1], -1)

    def read(self, found: Any, count: int) -> Tensor:
        """[count, pixels · per_pixel]."""
        (rows, columns), each = self.shape, self.likelihood.per_pixel
        one = [[count, rows * columns], [count, rows, columns], [count, 1, rows, columns]]
        if isinstance(found, tuple | list) and len(found) == each and all(_shape(part) in one for part in found):
            return torch.cat([part.reshape(count, -1) for part in found], 1)
        together = [[count, each * rows * columns], [count, each, rows, columns]]
        if isinstance(found, Tensor) and list(found.shape) in (one + together if each == 1 else together):
            return found.reshape(count, -1)
        needed = " or ".join(map(str, one)) if each == 1 else f"two tensors of {' or '.join(map(str, one))}"
        raise AdapterError(f"decode must return {needed} for {self.likelihood.title}, not {_described(found)}")


def logits(probabilities: Tensor) -> Tensor:
    """log p − log(1 − p), computed in float64; ±100 where p is 0 or 1, without a gradient there."""
    inside = (probabilities > 0) & (probabilities < 1)
    p = torch.where(inside, probabilities, 0.5)
    p = p if p.device.type == "mps" else p.double()
    found = (p.log() - torch.log1p(-p)).to(probabilities.dtype)
    beyond = torch.where(probabilities > 0.5, LARGEST_LOGIT, -LARGEST_LOGIT)
    return torch.where(inside, found.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), beyond)


def check_module(network: Any, name: str) -> None:
    """Raise AdapterError for what is no network with float32 weights."""
    if not isinstance(network, nn.Module):
        raise AdapterError(f"{name} must be a torch.nn.Module, not a {type(network).__name__}")
    if next(network.parameters(), None) is None:
        raise AdapterError(f"{name} has no parameters")
    for place, weight in (*network.named_parameters(), *network.named_buffers()):
        if weight.is_complex() or (weight.is_floating_point() and weight.dtype != torch.float32):
            raise AdapterError(f"{name}: {place} is {weight.dtype}, and weights must be float32: {name}.float()")


def _called(network: nn.Module, x: Tensor, name: str) -> Any:
    """What the network returns for a copy of x, which it may change in place. Raises AdapterError for whatever it
    raises but a lack of memory."""
    if network.training:
        raise AdapterError(
            f"{name} is in training mode, where dropout and batch normalization make its numbers random: {name}.eval()"
        )
    try:
        return network(x.clone())
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise AdapterError(
            f"{name} raises {printable(' '.join(f'{type(error).__name__}: {error}'.split()), 200)}"
        ) from error


def _try_encoder(network: nn.Module, config: ModelConfig, log_var: bool) -> _Encoder:
    """The encoder with the first shape of images that the network takes."""
    x, reasons = _images(config, next(network.parameters()).device), {}
    for image in ((1, *config.shape), (config.pixels,), config.shape):
        encoder = _Encoder(network, image, config.latent[0], log_var)
        try:
            found = encoder(x)
        except AdapterError as error:  # of a shape that it does not take
            reasons.setdefault(printable(error, 250), []).append(str([TRIED, *image]))
            continue
        for part, what in zip(found, ("mean", "log standard deviation"), strict=True):
            _check_numbers(part, f"the {what} that encode returns")
        _check_alone(encoder, x, "encode")
        return encoder
    told = "; ".join(f"of x {', '.join(shapes)}: {reason}" for reason, shapes in reasons.items())
    raise AdapterError(f"encode takes no images of {shape_text(config.shape)} pixels: {told}")


def _try_decoder(decoder: _Decoder, config: ModelConfig) -> _Decoder:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(TRIED, config.latent[0], generator=generator).to(next(decoder.parameters()).device)
    try:
        with torch.no_grad():
            found = _called(decoder.network, h, "decode")
    except AdapterError as error:
        raise AdapterError(f"decode takes no h of {list(h.shape)}: {error}") from error
    found = decoder.read(found, len(h))
    _check_numbers(found, "what decode returns")
    if decoder.probabilities and not (found.min() >= 0 and found.max() <= 1):
        low, high = found.min().item(), found.max().item()
        raise AdapterError(f"decode returns numbers from {low:.3g} to {high:.3g}, which are not probabilities")
    _check_alone(decoder, h, "decode")
    return decoder


def _check_numbers(values: Tensor, what: str) -> None:
    if values.dtype != torch.float32:
        raise AdapterError(f"{what} is {values.dtype}, not float32")
    if not values.isfinite().all():
        raise AdapterError(f"{what} is not finite: {values[~values.isfinite()][0].item()} for a trial image")


@torch.no_grad()
def _check_alone(network: Callable[[Tensor], Any], x: Tensor, name: str) -> None:
    """Raise AdapterError unless rows give the same once more and without one of them."""
    among, fewer = network(x), network(x[:-1])
    pairs = zip(among, fewer, strict=True) if isinstance(among, tuple) else [(among, fewer)]
    if not all(torch.allclose(one[:-1], other, rtol=1e-3, atol=1e-4) for one, other in pairs):
        raise AdapterError(
            f"{name} gives other numbers for an image when it is called again without the others: it draws random "
            "numbers, as torch.nn.functional.dropout does by default, or normalizes over the batch"
        )


def _images(config: ModelConfig, device: torch.device) -> Tensor:
    """Images of zeros and ones, which every likelihood takes, [TRIED, pixels]."""
    chance = torch.rand(TRIED, config.pixels, generator=torch.Generator().manual_seed(0))
    return (chance < 0.3).float().to(device)


def _cost(network: nn.Module, x: Tensor) -> tuple[int, int]:
    """(multiply-adds, numbers kept for a gradient) of one row of x."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with FlopCounterMode(display=False) as counter:
            found = network(x.clone().requires_grad_())
        del found
    for weight in network.state_dict().values():
        kept.pop(weight.data_ptr(), None)
    return counter.get_total_flops() // 2 // len(x), -(-sum(kept.values()) // len(x))


def _last(network: nn.Module) -> nn.Module:
    """The module that was registered last, of all inside it."""
    return list(network.modules())[-1]


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if isinstance(value, Tensor) else None


def _described(value: Any) -> str:
    """``a tensor of [3, 32]`` or ``a tuple of 3``."""
    if isinstance(value, Tensor):
        return f"a tensor of {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(map(_described, value)) or 'nothing'}"
    return f"a {type(value).__name__}"
