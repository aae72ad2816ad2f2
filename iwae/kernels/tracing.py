"""A step's gradient as a program of its own, without Python and autograd, which otherwise build it anew at every step.

``Compiled``, for a GPU: a few fused kernels instead of some 200, each of which takes longer to launch than to run.
``Traced``, for a CPU: the same operations one after the other, without Python's lock, for which two threads would wait.
Only ``training.engine`` uses them.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib import util
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from iwae.kernels import bernoulli

TOO_NEW = (3, 14)  # the first Python for which torch.jit is not supported

Function = Callable[..., tuple[Tensor, ...]]


def missing_for_compiling() -> str | None:
    """What torch.compile lacks on this machine to make kernels for a GPU; None if nothing."""
    compiler = os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    needed = {"Triton": util.find_spec("triton"), "a C compiler": compiler}
    return next((name for name, found in needed.items() if not found), None)


def can_trace() -> bool:
    """Whether torch.jit supports this Python."""
    return sys.version_info < TOO_NEW


def _operations(function: Function, given: tuple[Tensor, ...]) -> GraphModule:
    """What ``function`` does, including its derivatives, to tensors of these shapes; others are constants."""
    with torch.enable_grad():
        return make_fx(function)(*given)


class Compiled:
    """``function``, of tensors whose shapes never change, as a few kernels. Tensors that it is not given are constants
    from the first call on."""

    def __init__(self, function: Function):
        self.function, self.compiled = function, None

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        if self.compiled is None:
            self.compiled = torch.compile(_operations(self.function, given), fullgraph=True, dynamic=False)
        return self.compiled(*given)


class Traced:
    """``function``, of tensors of the shapes of ``example``, as a list of operations. Several threads may call it.

    A trace cannot branch: where a likelihood needs its plain formula, it is NaN instead (``bernoulli.branch_free``),
    and so is everything that follows from it.
    """

    def __init__(self, function: Function, *example: Tensor):
        with torch.no_grad(), bernoulli.branch_free(), warnings.catch_warnings():
            # torch announces that torch.compile replaces it; that needs a compiler, and runs under Python's lock
            warnings.filterwarnings("ignore", message="`torch.jit")
            self.script: Any = torch.jit.trace(_operations(function, example), example, check_trace=False)

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self.script(*given)
