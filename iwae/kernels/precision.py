"""Matrix products: by which library, and with which precision in training.

On a CPU torch's float32 products are MKL's, which on AMD's processors does not use AVX-512: oneDNN, which torch brings
too, multiplies there 1.5 to 2.3 times as fast, and ``product`` and ``Linear`` go to it. On Intel's processors, and
without AVX-512, they stay with MKL, which unlike oneDNN takes transposed factors as they lie, and keeps no code for
each size.

With ``bfloat16`` the factors and the result of every product are rounded to eight binary digits; sums inside a product
are float32. Processors with instructions for it (AVX-512 BF16, AMX) then multiply two to several times faster; others
stay at float32, as ``used`` says. ``tf32`` rounds the factors to eleven digits, on the tensor cores of a CUDA device.
docs/performance.md says what they do to a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MATMUL_PRECISIONS = {"float32": None, "bfloat16": "cpu", "tf32": "cuda"}  # and the only kind of device that has them
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # either will do

FEW = 250  # rows below which rounding costs more than it saves
SMALL = 500_000  # multiplications below which oneDNN, which takes 10 µs to begin, is the slower library

_by_onednn = True
_rounds = False  # in all threads of the process


@contextmanager
def of(precision: str) -> Iterator[None]:
    """A context in which the products of a model's layers have this precision, in all threads of the process."""
    global _rounds
    rounds_itself, on_cuda = _rounds, torch.get_float32_matmul_precision()
    here = used(precision)
    _rounds = here == "bfloat16"
    if here == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        _rounds = rounds_itself
        torch.set_float32_matmul_precision(on_cuda)


def check(precision: str, device: str | torch.device) -> None:
    """Raise ValueError where this kind of device has no such products."""
    kind = MATMUL_PRECISIONS[precision]
    if kind not in (None, torch.device(device).type):
        raise ValueError(f"matrix products in {precision} need the device {kind}; on {device} they are float32")


@cache
def used(precision: str) -> str:
    """The precision that products really have on this machine when this one is asked for."""
    return "float32" if MATMUL_PRECISIONS[precision] == "cpu" and not _has_bfloat16() else precision


@cache
def _has_bfloat16() -> bool:
    """Whether the processor has instructions for it; without, oneDNN may have no such product at all."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in INSTRUCTIONS)


@cache
def _onednn() -> Any:
    """torch's operation a·bᵀ + bias by oneDNN, which its compiler uses; None where this build has none."""
    found: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    try:
        found(torch.eye(2), torch.eye(2), None, "none", [], "")
    except (TypeError, RuntimeError):  # none, or of another version of torch
        return None
    return found


@cache
def _mkl_is_faster() -> bool:
    """Whether the processor is one on which MKL is the faster library for float32."""
    able = torch.cpu.get_capabilities()
    return "Intel" in str(able.get("cpu_name")) or able.get("avx512_f") is False


def by_onednn(kind: torch.dtype) -> bool:
    """Whether the large products of a CPU are oneDNN's: it keeps half a MiB of code for each product of each size."""
    rightly = _has_bfloat16() if kind == torch.bfloat16 else kind == torch.float32 and not _mkl_is_faster()
    return rightly and _by_onednn and _onednn() is not None


@contextmanager
def without_onednn() -> Iterator[None]:
    """A context for torch.compile, which finds the library itself."""
    global _by_onednn
    _by_onednn = False
    try:
        yield
    finally:
        _by_onednn = True


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, tanh: bool = False) -> Tensor:
    """a·b of matrices, with the bias [columns] added to each row and then perhaps tanh. No gradient goes through it."""
    if a.device.type == "cpu" and a.shape[0] * a.shape[1] * b.shape[1] > SMALL and by_onednn(a.dtype):
        return _onednn()(a, b.T, bias, "tanh" if tanh else "none", [], "")
    out = a @ b
    if bias is not None:
        out += bias  # torch.addmm would first lay it down in every row, which takes longer
    return out.tanh_() if tanh else out


def rounded_product(a: Tensor, b: Tensor, bias: Tensor | None = None, coarse: bool = False) -> Tensor:
    """The same without tanh; ``coarse``, of factors in bfloat16."""
    if not coarse:
        return product(a, b, bias)
    out = product(a.bfloat16(), b.bfloat16()).to(a.dtype)
    return out if bias is None else out.add_(bias)


def rounds(rows: int) -> bool:
    """Whether products of so many rows are rounded here and now."""
    return _rounds and rows >= FEW


class Linear(nn.Linear):
    """A layer whose products have the precision of ``of``."""

    def forward(self, below: Tensor) -> Tensor:
        return linear(below, self.weight, self.bias)


def linear(below: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """below·Wᵀ + b, in the precision of the weights whatever that of the factors."""
    if below.device.type != "cpu" or torch.compiler.is_exporting():
        return F.linear(below, weight, bias)
    rows = below.numel() // below.shape[-1]
    out = _Linear.apply(below.reshape(rows, -1), weight, bias, rounds(rows))
    return out.view(*below.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, below, weight, bias, coarse):
        ctx.save_for_backward(below, weight)
        ctx.coarse = coarse
        return rounded_product(below, weight.T, bias, coarse)

    @staticmethod
    def backward(ctx, g_out):
        below, weight = ctx.saved_tensors
        for_below, for_weight, for_bias, _ = ctx.needs_input_grad
        return (  # by products that have derivatives themselves
            _Linear.apply(g_out, weight.T, None, ctx.coarse) if for_below else None,
            _Linear.apply(g_out.T, below.T, None, ctx.coarse) if for_weight else None,
            g_out.sum(0) if for_bias else None,
            None,
        )
