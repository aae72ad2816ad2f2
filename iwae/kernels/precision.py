"""The precision of matrix products in training.

With ``bfloat16`` the factors and the result of every product are rounded to eight binary digits; sums inside a product
are float32. Processors with instructions for it (AVX-512 BF16, AMX) then multiply two to several times faster; others
stay at float32, as ``used`` says. ``tf32`` rounds the factors to eleven digits, on the tensor cores of a CUDA device.
docs/performance.md says what they do to a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MATMUL_PRECISIONS = {"float32": None, "bfloat16": "cpu", "tf32": "cuda"}  # and the only kind of device that has them
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # either will do

FEW = 250  # rows below which rounding costs more than it saves

_kind: torch.dtype | None = None  # in all threads of the process


@contextmanager
def of(precision: str) -> Iterator[None]:
    """A context in which the products of a model's layers have this precision, in all threads of the process."""
    global _kind
    rounds_itself, on_cuda = _kind, torch.get_float32_matmul_precision()
    here = used(precision)
    _kind = torch.bfloat16 if here == "bfloat16" else None
    if here == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        _kind = rounds_itself
        torch.set_float32_matmul_precision(on_cuda)


def check(precision: str, device: str | torch.device) -> None:
    """Raise ValueError where this kind of device has no such products."""
    kind = MATMUL_PRECISIONS[precision]
    if kind not in (None, torch.device(device).type):
        raise ValueError(f"matrix products in {precision} need the device {kind}; on {device} they are float32")


@cache
def used(precision: str) -> str:
    """The precision that products really have on this machine when this one is asked for."""
    able = torch.cpu.get_capabilities()
    missing = MATMUL_PRECISIONS[precision] == "cpu" and not any(able.get(name) for name in INSTRUCTIONS)
    return "float32" if missing else precision


def rounded(tensor: Tensor, rows: int) -> Tensor:
    """The tensor as a factor of a product of so many rows."""
    return tensor if _kind is None or rows < FEW else tensor.to(_kind)


def add(total: Tensor, a: Tensor, b: Tensor, alpha: float) -> None:
    """total += alpha·a·b, where the factors may have a lower precision than the total."""
    if a.dtype == total.dtype:
        total.addmm_(a, b, alpha=alpha)
    else:
        total.add_(a @ b, alpha=alpha)


class Linear(nn.Linear):
    """A layer whose products have the precision of ``of``."""

    def forward(self, below: Tensor) -> Tensor:
        return linear(below, self.weight, self.bias)


def linear(below: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """below·Wᵀ + b, in the precision of b whatever that of the factors."""
    rows = below.numel() // below.shape[-1]
    if _kind is None or rows < FEW or below.device.type != "cpu":
        return F.linear(below, weight, bias)
    return _Rounded.apply(below, weight, bias)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, below, weight, bias):
        rows, ctx.shape = below.reshape(-1, below.shape[-1]).to(_kind), below.shape
        weight = weight.to(_kind)
        ctx.save_for_backward(rows, weight)
        return torch.add(bias, rows @ weight.T).view(*below.shape[:-1], len(bias))

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        rows, weight = ctx.saved_tensors
        g_out = g_out.reshape(len(rows), -1)
        coarse, (for_below, for_weight, for_bias) = g_out.to(weight.dtype), ctx.needs_input_grad
        g_below = (coarse @ weight).to(g_out.dtype).view(ctx.shape) if for_below else None
        g_weight = (coarse.T @ rows).to(g_out.dtype) if for_weight else None
        return g_below, g_weight, g_out.sum(0) if for_bias else None
