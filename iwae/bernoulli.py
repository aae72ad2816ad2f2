"""log p(x|h) of the Bernoulli decoder: the plain formula, and two faster ways to the same numbers.

    log p(x|h) = Σ_pixels x·l − log(1 + eˡ),   l = W a + b the logits, a the last hidden layer

Two identities carry the speed. Σ x·l needs no pass over the pixels of every draw: it is (xW)·a + x·b. And
−Σ log(1 + eˡ) = Σ log σ(−l) takes one logarithm for eight pixels, of the product of their σ(−l); where such a
product could underflow, the plain formula is used instead.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 8  # pixels whose probabilities are multiplied before the logarithm
SMALLEST_PRODUCT = 1e-30  # below this float32 starts to lose digits (its smallest normal number is 1.2e-38)


def log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """The reference: Σ_pixels x·l − log(1 + eˡ). x [batch, pixels], logits [..., batch, pixels] → [..., batch]."""
    return (x * logits - F.softplus(logits)).sum(-1)


def fused_log_likelihood(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """log p(x|h) [..., batch] from the last hidden layer [..., batch, units], differentiable in all but x."""
    return _Fused.apply(x, hidden, weight, bias)


class _Fused(torch.autograd.Function):
    """Keeps σ(−l) alone for the backward pass; ∂ log p/∂l = x − σ(l) = x − 1 + σ(−l)."""

    @staticmethod
    def forward(ctx, x, hidden, weight, bias):
        off = F.linear(hidden, -weight, -bias).sigmoid_()  # σ(−l), the probability of an unlit pixel
        ctx.save_for_backward(x, hidden, weight, off)
        log_off = sum_log(off)
        if log_off is None:
            log_off = -F.softplus(F.linear(hidden, weight, bias)).sum(-1)
        return lit(x, hidden, weight, bias) + log_off

    @staticmethod
    def backward(ctx, grad):
        x, hidden, weight, off = ctx.saved_tensors
        slope = off.add(x - 1).mul_(grad.unsqueeze(-1))  # ∂/∂logits [..., batch, pixels]
        flat = slope.flatten(0, -2)
        return None, slope @ weight, flat.T @ hidden.flatten(0, -2), flat.sum(0)


def lit(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Σ_pixels x·l [..., batch] without forming the logits l = W·hidden + b."""
    return ((x @ weight) * hidden).sum(-1) + x @ bias


def sum_log(probability: Tensor, scratch: Tensor | None = None) -> Tensor | None:
    """Σ_pixels log probability [...], one logarithm for GROUP pixels; None where a product could underflow."""
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


class Streamed:
    """Without gradients: h → log p(x|h) through any tanh network, a cache-sized block of rows at a time.

    tanh(z) = 2σ(2z) − 1, and PyTorch's σ costs a third of its tanh on a CPU; the 2 and the −1 are folded into the
    next layer's weights. Rows are never wider than a block, so memory does not grow with the number of draws.
    """

    ROWS = 500

    def __init__(self, linears: list[torch.nn.Linear]):
        scale, shift = 1.0, 0.0  # what turns the layer's true input into the folded one: scale·σ + shift
        self.folded = []
        for i, linear in enumerate(linears):
            last = i == len(linears) - 1
            outer = -1.0 if last else 2.0  # the last layer gives σ(−l)
            weight, bias = linear.weight, linear.bias + shift * linear.weight.sum(1)
            self.folded.append(((outer * scale) * weight, outer * bias))
            scale, shift = 2.0, -1.0
        self.last = linears[-1]

    def __call__(self, x: Tensor, h: Tensor) -> Tensor:
        """x [batch, pixels], h [k, batch, latent] → log p(x|h) [k, batch]."""
        k, batch, _ = h.shape
        draws = max(1, self.ROWS // batch)
        out = h.new_empty(k, batch)
        buffers = [h.new_empty(min(draws, k) * batch, len(b)) for _, b in self.folded]
        scratch = h.new_empty(min(draws, k) * batch, self.last.out_features // GROUP)
        weight, bias = self.folded[-1]
        x_weight, x_bias = x @ -weight, x @ -bias  # Σ x·l in terms of the folded hidden layer
        for start in range(0, k, draws):
            rows = h[start : start + draws].reshape(-1, h.shape[-1])
            below = rows
            for (w, b), buffer in zip(self.folded, buffers, strict=True):
                hidden = below
                below = torch.addmm(b, below, w.T, out=buffer[: len(rows)]).sigmoid_()
            log_off = sum_log(below, scratch[: len(rows)])
            if log_off is None:
                log_off = -F.softplus(F.linear(hidden, -weight, -bias)).sum(-1)
            hidden = hidden.view(-1, batch, hidden.shape[-1])
            out[start : start + draws] = (x_weight * hidden).sum(-1) + x_bias + log_off.view(-1, batch)
        return out
