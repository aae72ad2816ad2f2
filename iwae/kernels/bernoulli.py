"""log p(x|h) of the Bernoulli decoder: the plain formula, and a faster way to the same numbers and gradients.

    log p(x|h) = Σ_pixels x·l − log(1 + eˡ),   l = W a + b the logits, a the last hidden layer

What carries the speed, on a CPU:

- Rows (draws × images) go through the whole network a cache-sized block at a time, forward and backward.
- Products and tanh are one operation where they are oneDNN's (``precision.product``).
- A pixel's log-probability is log σ(s·l) with s = 2x − 1 = ±1. 16 pixels share one logarithm, of the product of
  their σ(s·l); where such a product could underflow, the plain formula is used instead.
- ∂ log p/∂l = s·(1 − σ(s·l)) is all that the backward pass needs of the pixels. The weights of the draws, which come
  from above, multiply the narrow factors of its products and not the pixels.
- Draws whose weight is below rounding do not go backward at all.
- The products may be rounded (``precision``). Where s·l is rounded, its logarithm and its gradient still agree.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from iwae.kernels import precision

ROWS = 500  # in a block
GROUP = 16  # pixels whose probabilities are multiplied before the logarithm, in two halves: torch is fastest at 8
NEGLIGIBLE = 1e-15  # share of the largest weight below which a draw's gradient is lost in rounding (float32: 6e-8)
SMALLEST_PRODUCT = 1e-30  # below this float32 starts to lose digits (its smallest normal number is 1.2e-38)

Blocks = list[list[Tensor]]  # of each block of rows: its hidden layers, and ∂ log p/∂l


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
    return forward(x, h, weights)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, h, *weights):
        kept: Blocks = []
        log_p = forward(x, h, weights, kept)
        ctx.save_for_backward(h, *weights[0::2], *chain.from_iterable(kept))
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        h, *rest = ctx.saved_tensors
        layers = (len(ctx.needs_input_grad) - 2) // 2
        kept = [list(rest[i : i + layers]) for i in range(layers, len(rest), layers)]
        g_h, g_weights = backward(h, rest[:layers], kept, g_out, any(ctx.needs_input_grad[2:]))
        return None, g_h, *(g_weights or (None for _ in range(2 * layers)))


def forward(x: Tensor, h: Tensor, weights: Sequence[Tensor], kept: Blocks | None = None) -> Tensor:
    """log p(x|h) [k, batch], without a graph, through layers of these weights and biases in turn. ``kept`` receives
    what ``backward`` needs."""
    k, batch, _ = h.shape
    draws = min(_draws(batch), k)
    if precision.rounds(k * batch):
        weights = [tensor.bfloat16() for tensor in weights]
    pairs = _pairs(weights)
    scratch = h.new_empty(draws * batch, 2 * (x.shape[1] // GROUP))
    sign, out = 2 * x - 1, h.new_empty(k, batch)
    signs = sign, sign * weights[-1]
    for start in range(0, k, draws):
        out[start : start + draws] = _forward_block(signs, h[start : start + draws], pairs, scratch, kept)
    return out


def _forward_block(
    signs: tuple[Tensor, Tensor],
    h: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    scratch: Tensor,
    kept: Blocks | None,
) -> Tensor:
    """``forward`` of some draws, with s and s·b of the images; what they do not keep is free when it returns."""
    (sign, signed_bias), (*hidden, (weight, bias)) = signs, layers
    below, outs = h.reshape(-1, h.shape[-1]).to(weight.dtype), []
    for layer in hidden:
        below = precision.product(below, layer[0].T, layer[1], tanh=True)
        if kept is not None:
            outs.append(below)
    logits = precision.product(below, weight.T).to(h.dtype)
    of_images = logits.view(-1, *sign.shape)
    torch.addcmul(signed_bias, sign, of_images, out=of_images)  # s·l
    log_p = _sum_log(logits.sigmoid_(), scratch[: len(below)])
    if log_p is None:
        log_p = F.logsigmoid(precision.product(below, weight.T, bias).view_as(of_images) * sign).sum(-1)
    if kept is not None:
        torch.addcmul(sign, sign, of_images, value=-1, out=of_images)  # s·(1 − σ(s·l))
        kept.append([*outs, logits.to(weight.dtype)])
    return log_p.view(-1, len(sign))


def backward(
    h: Tensor,
    weights: Sequence[Tensor],
    kept: Blocks,
    g_out: Tensor,
    trained: bool = True,
    matters: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients in h and, if ``trained``, in all weights and biases, of what has the gradient ``g_out`` [k, batch] in
    log p. ``weights`` are the layers' matrices; ``kept`` is used up, block by block, so that its memory comes free. g
    stands for the gradient of what is named after it.

    ``matters`` [k, batch] says how much each draw counts: those that rounding would lose beside the greatest of their
    block are left out, and their gradient in h is zero. Not with oneDNN, which keeps code for every number of rows.
    """
    count, rows, kind = len(weights), _draws(h.shape[1]) * h.shape[1], kept[0][0].dtype
    weights = [weight.to(kind) for weight in weights]
    h_blocks, g_h = h.reshape(-1, h.shape[-1]).to(kind).split(rows), []
    # importance weights of e⁻⁹⁰ would make denormal numbers, with which products take four times as long
    g_out = g_out.where(g_out.abs() > NEGLIGIBLE * g_out.abs().max(), 0.0).reshape(-1, 1).to(kind)
    chosen: list[Tensor | None] = [None] * len(kept)
    if matters is not None and not precision.by_onednn(kind):
        chosen = [_that_count(each) for each in matters.reshape(-1).split(rows)]
    totals: list[Tensor] = []
    for h_rows, row, some in reversed(list(zip(h_blocks, g_out.split(rows), chosen, strict=True))):
        whole, (*outs, g_of) = len(row), kept.pop()
        if some is not None:
            h_rows, row, g_of, *outs = (each[some] for each in (h_rows, row, g_of, *outs))
        inputs, parts = [h_rows, *outs], []
        for i in reversed(range(count)):
            below, top = inputs[i], i == count - 1
            if trained:
                g_bias = (row.T @ g_of)[0] if top else g_of.sum(0)
                parts = [precision.product(g_of.T, below * row if top else below), g_bias, *parts]
            g_below = precision.product(g_of, weights[i])
            if top:
                g_below.mul_(row)
            g_of = torch.ops.aten.tanh_backward(g_below, below) if i else g_below
        g_h.insert(0, g_of if some is None else g_of.new_zeros(whole, g_of.shape[1]).index_copy_(0, some, g_of))
        if totals:
            for total, part in zip(totals, parts, strict=True):
                total += part
        else:
            totals = [part.to(h.dtype) for part in parts]
    return torch.cat(g_h).view(h.shape).to(h.dtype), totals


def _that_count(matters: Tensor) -> Tensor | None:
    """Indices of the rows that are not lost in rounding beside the greatest; None for all, and where there is a NaN."""
    lost = matters <= torch.finfo(matters.dtype).eps * matters.max()
    return (~lost).nonzero()[:, 0] if lost.any() else None


def _sum_log(probability: Tensor, scratch: Tensor) -> Tensor | None:
    """Σ_pixels log probability [rows], one logarithm for GROUP pixels; None where a product could underflow."""
    rows, pixels = probability.shape
    if pixels % GROUP:
        return None
    torch.prod(probability.view(rows, GROUP // 2, -1), 1, out=scratch)
    product = torch.mul(*scratch.chunk(2, 1))
    if product.min() > SMALLEST_PRODUCT:  # not where there is a NaN
        return product.log_().sum(-1)
    return None


def _draws(batch: int) -> int:
    """How many draws of ``batch`` images each make a block."""
    return max(1, ROWS // batch)


def _pairs(weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(weights[0::2], weights[1::2], strict=True))
