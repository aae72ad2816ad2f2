"""log p(x|h) of the Bernoulli decoder: the plain formula, and a faster way to the same numbers and gradients.

    log p(x|h) = Σ_pixels x·l − log(1 + eˡ),   l = W a + b the logits, a the last hidden layer

What carries the speed, on a CPU:

- Rows (draws × images) go through the whole network a cache-sized block at a time, forward and backward.
- tanh(z) = 2σ(2z) − 1, and PyTorch's σ costs a third of its tanh; the 2 and the −1 go into the weights.
- Σ x·l needs no pass over the pixels of every draw: it is (xW)·a + x·b, one more product for all draws of an image.
- −Σ log(1 + eˡ) = Σ log σ(−l) takes one logarithm for eight pixels, of the product of their σ(−l); where such a
  product could underflow, the plain formula is used instead.
- ∂ log p/∂l = x − σ(l) = x − 1 + σ(−l): of the pixels, σ(−l) is all that the backward pass needs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ROWS = 1000  # in a block
FEW = 5  # draws for which that pass costs less than the product
GROUP = 8  # pixels whose probabilities are multiplied before the logarithm
NEGLIGIBLE = 1e-15  # share of the largest weight below which a draw's gradient is rounding's (float32: 6e-8)
SMALLEST_PRODUCT = 1e-30  # below this float32 starts to lose digits (its smallest normal number is 1.2e-38)


def log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """The reference: Σ_pixels x·l − log(1 + eˡ). x [batch, pixels], logits [..., batch, pixels] → [..., batch]."""
    return (x * logits - F.softplus(logits)).sum(-1)


def fused_log_likelihood(x: Tensor, h: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
    """x [batch, pixels], h [k, batch, latent] → log p(x|h) [k, batch] through ``linears`` with tanh between them.

    Once differentiable, in h and the weights but not in x. Without gradients, memory does not grow with k.
    """
    weights = [tensor for linear in linears for tensor in (linear.weight, linear.bias)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (h, *weights)):
        return _Fused.apply(x, h, *weights)
    return _forward(x, h, _pairs(weights), None)


class _Fused(torch.autograd.Function):
    """Keeps the σ of every layer; below, g stands for the gradient of what is named after it."""

    @staticmethod
    def forward(ctx, x, h, *weights):
        rows = h.shape[0] * h.shape[1]
        kept = [h.new_empty(rows, len(bias)) for _, bias in _pairs(weights)]
        ctx.save_for_backward(x, h, *weights, *kept)
        return _forward(x, h, _pairs(weights), kept)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        x, h, *rest = ctx.saved_tensors
        weights, kept = rest[: len(rest) // 3 * 2], rest[len(rest) // 3 * 2 :]
        layers = _layers(_pairs(weights))
        inputs = [h.reshape(-1, h.shape[-1]), *kept[:-1]]
        g_h = torch.empty_like(inputs[0])
        g_weights = [(torch.empty_like(weight), torch.zeros_like(bias)) for weight, bias in _pairs(weights)]
        batch, unlit = len(x), 1 - x
        draws = _draws(batch)
        # importance weights of e⁻⁹⁰ would make denormal numbers, with which products take four times as long
        g_out = g_out.where(g_out.abs() > NEGLIGIBLE * g_out.abs().max(), 0.0)
        for start in range(0, len(g_h), draws * batch):
            block = slice(start, start + draws * batch)
            row = g_out.view(-1, batch, 1)[start // batch : start // batch + draws]
            off = kept[-1][block].view(-1, *x.shape)
            # ∂ log p/∂(−l) = 1 − x − σ(−l), in place: σ(−l) is not needed again
            g_out_of = torch.sub(unlit, off, out=off).mul_(row).view(-1, x.shape[1])
            for i in reversed(range(len(layers))):
                (weight, _, outer, scale), (g_weight, g_bias), below = layers[i], g_weights[i], inputs[i][block]
                g_weight.addmm_(g_out_of.T, below, beta=0 if start == 0 else 1, alpha=outer * scale)
                g_bias.add_(g_out_of.sum(0), alpha=outer)
                g_below = torch.empty_like(below) if i else g_h[block]
                torch.addmm(g_below, g_out_of, weight, beta=0, alpha=outer * scale, out=g_below)
                if i:
                    g_out_of = torch.ops.aten.sigmoid_backward(g_below, below)
        for g_weight, g_bias in g_weights[1:]:  # the layer's input was 2σ − 1, not 2σ
            g_weight.sub_(g_bias.unsqueeze(1))
        return None, g_h.view_as(h), *(tensor for pair in g_weights for tensor in pair)


class _Layer(NamedTuple):
    """σ(outer·(W(scale·below + shift) + b)) with the shift in the bias."""

    weight: Tensor
    bias: Tensor
    outer: float  # 2 in tanh(z) = 2σ(2z) − 1; −1 for the pixels, whose σ(−l) is wanted
    scale: float


def _layers(pairs: list[tuple[Tensor, Tensor]]) -> list[_Layer]:
    """The same network with σ in the place of tanh."""
    layers = []
    for i, (weight, bias) in enumerate(pairs):
        outer = -1.0 if i == len(pairs) - 1 else 2.0
        layers.append(_Layer(weight, bias - weight.sum(1) if i else bias, outer, 2.0 if i else 1.0))
    return layers


def _forward(x: Tensor, h: Tensor, pairs: list[tuple[Tensor, Tensor]], kept: list[Tensor] | None) -> Tensor:
    """log p(x|h) [k, batch]; ``kept`` has room for σ of every layer and row, or is None."""
    k, batch, _ = h.shape
    draws = min(_draws(batch), k)
    layers = _layers(pairs)
    if kept is None:
        blocks = [h.new_empty(draws * batch, len(layer.bias)) for layer in layers]
    scratch = h.new_empty(draws * batch, len(layers[-1].bias) // GROUP)
    top, few = layers[-1], k < FEW
    if not few:
        x_weight, x_bias = (x @ top.weight).mul_(top.scale), x @ top.bias  # Σ x·l in terms of the σ below
    out = h.new_empty(k, batch)
    for start in range(0, k, draws):
        below = h[start : start + draws].reshape(-1, h.shape[-1])
        if kept is not None:
            blocks = [tensor[start * batch : start * batch + len(below)] for tensor in kept]
        *hidden, block = (block[: len(below)] for block in blocks)
        for layer, out_of in zip(layers[:-1], hidden, strict=True):
            below = _linear(layer, below, out_of).sigmoid_()
        off = _linear(top, below, block)  # −l
        lit = (off.view(-1, *x.shape) * x).sum(-1).neg_() if few else None
        log_off = _sum_log(off.sigmoid_(), scratch[: len(below)])
        if log_off is None:
            log_off = -F.softplus(F.linear(top.scale * below, top.weight, top.bias)).sum(-1)
        if lit is None:
            lit = (x_weight * below.view(-1, batch, below.shape[-1])).sum(-1) + x_bias
        out[start : start + draws] = lit + log_off.view(-1, batch)
    return out


def _linear(layer: _Layer, below: Tensor, out: Tensor) -> Tensor:
    """The argument of the layer's σ, into ``out``."""
    return torch.addmm(layer.bias, below, layer.weight.T, beta=layer.outer, alpha=layer.outer * layer.scale, out=out)


def _sum_log(probability: Tensor, scratch: Tensor) -> Tensor | None:
    """Σ_pixels log probability [rows], one logarithm for GROUP pixels; None where a product could underflow."""
    size = probability.shape[-1] // GROUP
    if size == 0 or size * GROUP != probability.shape[-1]:
        return None
    part = probability.split(size, -1)
    product = torch.mul(part[0], part[1], out=scratch)
    for factor in part[2:]:
        product.mul_(factor)
    if not product.min() > SMALLEST_PRODUCT:  # also true for NaN
        return None
    return product.log_().sum(-1)


def _draws(batch: int) -> int:
    """Draws of ``batch`` images each that make a block."""
    return max(1, ROWS // batch)


def _pairs(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(weights[0::2], weights[1::2], strict=True))
