"""A step's gradient as a program of its own, in the place of Python and autograd, which find their way through it anew
at every step.

``Compiled``, for a GPU: few kernels instead of some 200, each of which takes longer to begin than to do its work.
``Listed``, for a CPU: the same operations one after the other, without Python's lock, for which two threads would wait.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from iwae.kernels import bernoulli

LONG = 75_000  # steps of a run from which on compiling, some 20 seconds, is paid back
LISTED_LONG = 500  # and from which on listing is, half a second
TOO_NEW = (3, 14)  # the first Python for which torch.jit is not supported
CAN_LIST = sys.version_info < TOO_NEW

Function = Callable[..., tuple[Tensor, ...]]


def worth_compiling(steps: int) -> bool:
    """Whether a run of so many steps gains by it. Warns where it would, but Triton or a C compiler is missing."""
    if steps < LONG:
        return False
    compiler = os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    wanted = {"Triton": find_spec("triton"), "a C compiler": compiler}
    missing = [name for name, found in wanted.items() if not found]
    if missing:
        warnings.warn(
            f"steps on the GPU are not compiled, and take about twice as long: there is not {missing[0]}", stacklevel=2
        )
    return not missing


def worth_listing(steps: int) -> bool:
    """Whether a run of so many steps gains by it. Warns where it would, but this Python is too new for torch's."""
    if steps < LISTED_LONG:
        return False
    if not CAN_LIST:
        version = ".".join(map(str, TOO_NEW))
        warnings.warn(
            f"steps take a tenth to a half as long again: torch runs no lists on Python {version} or later",
            stacklevel=2,
        )
        return False
    return True


def _operations(function: Function, given: tuple[Tensor, ...]) -> GraphModule:
    """What ``function`` does, its own derivatives too, to tensors of these shapes. What it does to others is fixed."""
    with torch.enable_grad():
        return make_fx(function)(*given)


class Compiled:
    """``function`` of tensors of always the same shapes, as few kernels: what it does to tensors that it is not given
    is fixed at the first call."""

    def __init__(self, function: Function):
        self.function, self.compiled = function, None

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        if self.compiled is None:
            self.compiled = torch.compile(_operations(self.function, given), fullgraph=True, dynamic=False)
        return self.compiled(*given)


class Listed:
    """``function`` of tensors of the shapes of ``example``, as a list of operations. Several threads may call it.

    A list cannot turn aside: a likelihood whose short way is no way (``bernoulli.straightly``) is NaN, and so is what
    follows from it.
    """

    def __init__(self, function: Function, *example: Tensor):
        with torch.no_grad(), bernoulli.straightly(), warnings.catch_warnings():
            # torch says that torch.compile will follow; that needs a compiler, and runs under Python's lock
            warnings.filterwarnings("ignore", message="`torch.jit")
            self.script = torch.jit.trace(_operations(function, example), example, check_trace=False)

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self.script(*given)
