"""The gradient of an estimator by its own formulas instead of autograd's: the same numbers up to rounding, on a CPU.

Autograd builds and walks a graph of some 200 small operations at every step, and holds Python's lock meanwhile, for
which the other threads wait. Below, g stands for the gradient of the loss in what is named after it. With the weights
c, d [k, batch] of ``gradients`` and α that of the KL, the loss is

    −Σ c (log p(x|h₁) + α log p(h)) − α d log q(h|x),   h = mean + std·noise

log p's gradient arrives at h weighted by c, for the sake of the decoder, and becomes d on its way to the encoder.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iwae.gradients import GRADIENTS, SMALLEST_WEIGHT, Chosen, Estimator, Noise, Weights
from iwae.kernels import bernoulli, precision
from iwae.kernels.layers import are_standard
from iwae.model import Model, Sample, StochasticLayer, log_standard

KEPT_ROWS = 500  # draws × images of a thread that wait for their way back: 5 kB each

Gradients = dict[nn.Parameter, Tensor]


def applies(model: Model) -> bool:
    """Whether these formulas are this model's: layers of tanh, Bernoulli pixels, no module of a user's, on a CPU."""
    return (
        model.device.type == "cpu"
        and model.config.likelihood == "bernoulli"
        and are_standard(model.pixel_hidden, model.pixel_logits)  # tanh, without convolutions
        and "logits" not in vars(model)
        and model.nonstandard() is None
    )


class _Gaussian:
    """Mean and log standard deviation of one stochastic layer, and what its backward pass needs."""

    def __init__(self, layer: StochasticLayer, below: Tensor):
        self.linears: list[Any] = list(layer.hidden)[0::2]
        self.heads: tuple[Any, ...] = layer.mean, layer.log_std
        self.coarse, self.outs = precision.rounds(len(below)), [below]
        for linear in self.linears:
            self.outs.append(self._hidden(linear, self.outs[-1]))
        self.weight = _side_by_side(*(head.weight for head in self.heads))
        bias = _side_by_side(*(head.bias for head in self.heads))
        self.mean, self.log_std = self._product(self.outs[-1], self.weight.T, bias).chunk(2, 1)

    def _product(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return precision.rounded_product(a, b, bias, self.coarse)

    def _hidden(self, linear: nn.Linear, below: Tensor) -> Tensor:
        if self.coarse:
            return self._product(below, linear.weight.T, linear.bias).tanh_()
        return precision.product(below, linear.weight.T, linear.bias, tanh=True)

    def backward(self, g_mean: Tensor, g_log_std: Tensor, into: Gradients | None, to_input: bool = True) -> Tensor:
        """The gradient in the input, if it is wanted; those in the weights go into ``into``, if there is one."""
        g_of = torch.cat([g_mean, g_log_std], 1)
        if into is not None:
            parts = self._product(g_of.T, self.outs[-1]).chunk(2), g_of.sum(0).chunk(2)
            for head, g_weight, g_bias in zip(self.heads, *parts, strict=True):
                into |= {head.weight: g_weight, head.bias: g_bias}
        g_below = self._product(g_of, self.weight)
        for i in reversed(range(len(self.linears))):
            linear, below = self.linears[i], self.outs[i]
            g_of = torch.ops.aten.tanh_backward(g_below, self.outs[i + 1])
            if into is not None:
                into[linear.weight], into[linear.bias] = self._product(g_of.T, below), g_of.sum(0)
            if i or to_input:
                g_below = self._product(g_of, linear.weight)
        return g_below


@torch.no_grad()
def gradients(
    model: Model,
    estimator: Estimator,
    x: Tensor,
    encoder_input: Tensor,
    noise: Noise,
    kl_weight: float | Tensor,
    images: int,
) -> tuple[Gradients, Sample]:
    """Of −1/``images`` times the sum of the bound over the images x [batch, pixels], in every weight of a model that
    ``applies``, by this estimator; and the k draws of each image. The arguments are those of ``Estimator.with_noise``.
    """
    first = _Gaussian(model.encoder[0], encoder_input)  # pyright: ignore[reportArgumentType]
    chosen, drawn = estimator.choose(model, x, encoder_input, noise, kl_weight, (first.mean, first.log_std))
    draws, batch = chosen.normal[0].shape[:2]
    rows, each = draws * batch, (draws, batch, -1)

    h, below, encoded, stds = [], encoder_input, [], []
    log_qh = x.new_zeros(draws, batch)
    for layer, eps in zip(model.encoder, chosen.normal, strict=True):
        q = _Gaussian(layer, below) if h else first  # pyright: ignore[reportArgumentType]
        shape = each if h else (1, batch, -1)  # the first layer is the same for all draws
        log_std = q.log_std.view(shape)
        stds.append(log_std.exp())
        h.append(torch.addcmul(q.mean.view(shape), stds[-1], eps))
        log_qh = log_qh + log_standard(eps, log_std)
        encoded.append(q)
        below = h[-1].view(rows, -1)

    log_ph, decoded = log_standard(h[-1]), []
    for layer, value, above in zip(model.decoder, h, h[1:], strict=False):
        p = _Gaussian(layer, above.view(rows, -1))  # pyright: ignore[reportArgumentType]
        log_std = p.log_std.view(each)
        inverse = (-log_std).exp()
        z = (value - p.mean.view(each)) * inverse
        log_ph = log_ph + log_standard(z, log_std)
        decoded.append((p, z, inverse))
    pixels: list[nn.Linear] = [*list(model.pixel_hidden)[0::2], model.pixel_logits]  # pyright: ignore
    of_pixels: list[Any] = [weight for linear in pixels for weight in (linear.weight, linear.bias)]
    logs = log_ph, log_qh
    log_px, c_and_d, g_first, g_pixels = _through_pixels(estimator, x, h[0], logs, chosen, of_pixels, kl_weight, images)
    found: Gradients = dict(zip(of_pixels, g_pixels, strict=True))
    g_ph = (kl_weight * c_and_d.decoder / -images).unsqueeze(-1)
    g_h = [g_first] + [torch.zeros_like(layer) for layer in h[1:]]
    g_h[-1].addcmul_(g_ph, h[-1], value=-1)
    for i, (p, z, inverse) in enumerate(decoded):
        g_mean = g_ph * z * inverse
        g_h[i] -= g_mean
        g_log_std = g_ph * (z.square() - 1)
        g_h[i + 1] += p.backward(g_mean.view(rows, -1), g_log_std.view(rows, -1), found).view(each)
    if c_and_d.encoder is not c_and_d.decoder:
        ratio = (c_and_d.encoder / c_and_d.decoder.clamp_min(SMALLEST_WEIGHT)).unsqueeze(-1)
        for layer in g_h:
            layer *= ratio

    g_qh = (kl_weight * c_and_d.encoder / images).unsqueeze(-1)
    through_density = GRADIENTS[estimator.gradient].through_density
    for i in reversed(range(len(h))):
        q, eps, std = encoded[i], chosen.normal[i], stds[i]
        if not through_density:  # log q of given h: by h, and by the layers below, but by no weight
            g_mean = g_qh * eps / std
            g_h[i] -= g_mean
            if i:
                g_log_std = g_qh * (eps.square() - 1)
                g_h[i - 1] += q.backward(g_mean.view(rows, -1), g_log_std.view(rows, -1), None).view(each)
        g_mean, g_log_std = g_h[i], (g_h[i] * std).mul_(eps)
        if through_density:
            g_log_std -= g_qh
        if i:
            g_below = q.backward(g_mean.view(rows, -1), g_log_std.view(rows, -1), found)
            g_h[i - 1] += g_below.view(each)
        else:
            q.backward(g_mean.sum(0), g_log_std.sum(0), found, to_input=False)
    return found, drawn or Sample(log_px, log_ph, log_qh, tuple(h))


def _through_pixels(
    estimator: Estimator,
    x: Tensor,
    h: Tensor,
    logs: tuple[Tensor, Tensor],
    chosen: Chosen,
    of_pixels: Sequence[Tensor],
    kl_weight: float | Tensor,
    images: int,
) -> tuple[Tensor, Weights, Tensor, list[Tensor]]:
    """log p(x|h₁), the weights of the draws, and the gradients in h₁, ``h``, and in ``of_pixels``, the weights and
    biases of the pixels' layers. ``logs`` are log p(h) and log q(h|x).

    Some images at a time, for until its way back a draw keeps all its pixels and hidden units.
    """
    at_once, parts = max(1, KEPT_ROWS // len(h)), []
    totals: list[Tensor] = []
    for start in range(0, len(x), at_once):
        some = slice(start, start + at_once)
        kept: bernoulli.Blocks = []
        log_px = bernoulli.forward(x[some], h[:, some], of_pixels, kept)
        if chosen.weights:
            weights = Weights(*(each[:, some] for each in chosen.weights))
        else:
            sample = Sample(log_px, logs[0][:, some], logs[1][:, some], ())
            weights = estimator.weights(sample.log_weights(kl_weight), kl_weight)
        matters = torch.maximum(*(each.abs() for each in weights)) if len(h) > 1 else None
        g_out = weights.decoder / -images
        g_h, g_pixels = bernoulli.backward(h[:, some], of_pixels[0::2], kept, g_out, matters=matters)
        parts.append((log_px, *weights, g_h))
        if totals:
            for total, g_weight in zip(totals, g_pixels, strict=True):
                total += g_weight
        totals = totals or g_pixels
    log_px, c, d, g_h = parts[0] if len(parts) == 1 else (torch.cat(part, 1) for part in zip(*parts, strict=True))
    return log_px, Weights(c, d), g_h, totals


def _side_by_side(a: Tensor, b: Tensor) -> Tensor:
    """a above b, without a copy where they lie so already."""
    if a.is_contiguous() and b.is_contiguous() and b.data_ptr() == a.data_ptr() + a.numel() * a.element_size():
        return a.detach().as_strided((2 * len(a), *a.shape[1:]), a.stride())
    return torch.cat([a.detach(), b.detach()])


def vector(found: Gradients, weights: Sequence[nn.Parameter]) -> Tensor:
    """The gradients of these weights one after the other, [weights]."""
    return torch.cat([found[weight].flatten() for weight in weights])
