"""log p(x|h) of the Bernoulli decoder: the plain formula, and a faster way to the same numbers and gradients.

    log p(x|h) = Σ_pixels x·l − log(1 + eˡ),   l = W a + b the logits, a the last hidden layer

What carries the speed, on a CPU:

- Rows (draws × images) go through the whole network a cache-sized block at a time, forward and backward.
- tanh(z) = 2σ(2z) − 1, and PyTorch's σ costs a third of its tanh; the 2 and the −1 are folded into the weights.
- A pixel's log-probability is log σ(s·l) with s = 2x − 1 = ±1. 16 pixels share one logarithm, of the product of
  their σ(s·l); where such a product could underflow, the plain formula is used instead.
- ∂ log p/∂l = s·(1 − σ(s·l)) is all that the backward pass needs of the pixels. The weights of the draws, which come
  from above, multiply the narrow factors of its products and not the pixels.
- The products may be rounded (``precision``). Where s·l is rounded, its logarithm and its gradient still agree.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from iwae.kernels import precision

ROWS = 500  # in a block
GROUP = 16  # pixels whose probabilities are multiplied before the logarithm, in two halves: torch is fastest at 8
NEGLIGIBLE = 1e-15  # share of the largest weight below which a draw's gradient is lost in rounding (float32: 6e-8)
SMALLEST_PRODUCT = 1e-30  # below this float32 starts to lose digits (its smallest normal number is 1.2e-38)


_here = threading.local()


@contextmanager
def branch_free() -> Iterator[None]:
    """In this thread the operations do not depend on the numbers, so that they can be traced: where the plain formula
    is needed, log p is NaN."""
    _here.branch_free = True
    try:
        yield
    finally:
        _here.branch_free = False


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
    return _forward(x, h, _layers(_pairs(weights), h.shape[0] * h.shape[1]), None)


class _Fused(torch.autograd.Function):
    """Keeps the σ of the hidden layers and ∂ log p/∂l; below, g stands for the gradient of what is named after it."""

    @staticmethod
    def forward(ctx, x, h, *weights):
        rows = h.shape[0] * h.shape[1]
        layers = _layers(_pairs(weights), rows)
        kept = [layer.weight.new_empty(rows, len(layer.bias)) for layer in layers]
        log_p = _forward(x, h, layers, kept)
        ctx.save_for_backward(h, *(layer.weight for layer in layers), *kept)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        h, *rest = ctx.saved_tensors
        weights, kept = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        rows, batch = kept[0].shape[0], h.shape[1]
        inputs = [h.reshape(rows, -1).to(kept[0].dtype), *kept[:-1]]
        g_h = torch.empty_like(inputs[0])
        trained = any(ctx.needs_input_grad[2:])  # else the gradient is wanted in h alone, at half the cost
        g_weights = [torch.zeros_like(weight, dtype=h.dtype) for weight in weights] if trained else []
        g_biases = [g_weight.new_zeros(len(g_weight)) for g_weight in g_weights]
        # importance weights of e⁻⁹⁰ would make denormal numbers, with which products take four times as long
        g_out = g_out.where(g_out.abs() > NEGLIGIBLE * g_out.abs().max(), 0.0).reshape(rows, 1).to(g_h.dtype)
        for start in range(0, rows, _draws(batch) * batch):
            block = slice(start, start + _draws(batch) * batch)
            g_of, row = kept[-1][block], g_out[block]
            for i in reversed(range(len(weights))):
                below, top = inputs[i][block], i == len(weights) - 1
                outer, scale = _factors(i, len(weights))
                if trained:
                    precision.add(g_weights[i], g_of.T, below * row if top else below, outer * scale)
                    g_biases[i].add_((row.T @ g_of)[0] if top else g_of.sum(0), alpha=outer)
                g_below = torch.mm(g_of, weights[i], out=None if i else g_h[block])
                if top:
                    g_below.mul_(row)
                if i:
                    g_of = torch.ops.aten.sigmoid_backward(g_below, below)
        if not trained:
            return None, g_h.to(h.dtype).view_as(h), *(None for _ in range(2 * len(weights)))
        for g_weight, g_bias in zip(g_weights[1:], g_biases[1:], strict=True):  # the input was 2σ − 1, not 2σ
            g_weight.sub_(g_bias.unsqueeze(1))
        return (
            None,
            g_h.to(h.dtype).view_as(h),
            *(tensor for pair in zip(g_weights, g_biases, strict=True) for tensor in pair),
        )


class _Layer(NamedTuple):
    """outer·(W(scale·below) + b) of the same network with σ instead of tanh, tanh(z) = 2σ(2z) − 1."""

    weight: Tensor  # outer·scale·W, with the precision of products
    bias: Tensor  # outer·(b − W's sums, for the −1)


def _factors(i: int, layers: int) -> tuple[float, float]:
    """outer and scale of layer i: outer is 2 for a layer with tanh and 1 for the pixels' logits."""
    return 1.0 if i == layers - 1 else 2.0, 2.0 if i else 1.0


def _layers(pairs: list[tuple[Tensor, Tensor]], rows: int) -> list[_Layer]:
    layers = []
    for i, (weight, bias) in enumerate(pairs):
        outer, scale = _factors(i, len(pairs))
        weight = precision.rounded(weight, rows)
        shifted = bias - weight.sum(1, dtype=bias.dtype) if i else bias
        layers.append(_Layer(weight * (outer * scale), (outer * shifted).to(weight.dtype)))
    return layers


def _forward(x: Tensor, h: Tensor, layers: list[_Layer], kept: list[Tensor] | None) -> Tensor:
    """log p(x|h) [k, batch]; ``kept`` receives what the backward pass needs of every layer and row, or is None."""
    k, batch, _ = h.shape
    draws, (*hidden, top) = min(_draws(batch), k), layers
    if kept is None:
        blocks = [layer.weight.new_empty(draws * batch, len(layer.bias)) for layer in layers]
    coarse = top.weight.dtype != h.dtype
    if coarse:
        exact = h.new_empty(draws * batch, len(top.bias))
    scratch = h.new_empty(draws * batch, 2 * (len(top.bias) // GROUP))
    sign, out = 2 * x - 1, h.new_empty(k, batch)
    for start in range(0, k, draws):
        below = h[start : start + draws].reshape(-1, h.shape[-1]).to(top.weight.dtype)
        rows = len(below)
        if kept is not None:
            blocks = [tensor[start * batch : start * batch + rows] for tensor in kept]
        *outs, block = (block[:rows] for block in blocks)
        for layer, out_of in zip(hidden, outs, strict=True):
            below = _linear(layer, below, out_of).sigmoid_()
        logits = _linear(top, below, block)
        if coarse:
            logits = exact[:rows].copy_(logits)
        of_images = logits.view(-1, *x.shape).mul_(sign)
        log_p = _sum_log(logits.sigmoid_(), scratch[:rows])
        if log_p is None:
            log_p = F.logsigmoid(_linear(top, below).view_as(of_images) * sign).sum(-1)
        out[start : start + draws] = log_p.view(-1, batch)
        if kept is not None:
            torch.addcmul(sign, sign, of_images, value=-1, out=of_images)  # s·(1 − σ(s·l))
            if coarse:
                block.copy_(logits)
    return out


def _linear(layer: _Layer, below: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.addmm(layer.bias, below, layer.weight.T, out=out)  # by factors that are not 1 it would cost more


def _sum_log(probability: Tensor, scratch: Tensor) -> Tensor | None:
    """Σ_pixels log probability [rows], one logarithm for GROUP pixels; where a product could underflow None, or NaN if
    ``branch_free``."""
    rows, pixels = probability.shape
    if pixels % GROUP:
        return None
    torch.prod(probability.view(rows, GROUP // 2, -1), 1, out=scratch)
    product = torch.mul(*scratch.chunk(2, 1))
    enough = product.min() > SMALLEST_PRODUCT  # not where there is a NaN
    if getattr(_here, "branch_free", False):
        return product.log_().sum(-1).where(enough, torch.nan)
    return product.log_().sum(-1) if enough else None


def _draws(batch: int) -> int:
    """How many draws of ``batch`` images each make a block."""
    return max(1, ROWS // batch)


def _pairs(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(weights[0::2], weights[1::2], strict=True))
