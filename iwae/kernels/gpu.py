"""Training steps for a GPU, which runs each of their some 200 small operations in less time than Python takes to launch
it: compiled to a few kernels, and recorded as a CUDA graph that launches all of them together.
"""

import os
import shutil
from collections.abc import Callable
from importlib import util

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from iwae.kernels import precision

EAGER_CALLS = 2  # on a side stream before the recording, so that libraries have set themselves up
BURST = 20  # steps in one graph while an epoch has so many left: fewer returns to Python

Function = Callable[..., tuple[Tensor, ...]]


def missing_for_compiling() -> str | None:
    """What torch.compile lacks on this machine to make kernels for a GPU; None if nothing."""
    compiler = os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    needed = {"Triton": util.find_spec("triton"), "a C compiler": compiler}
    return next((name for name, found in needed.items() if not found), None)


def _operations(function: Function, given: tuple[Tensor, ...]) -> GraphModule:
    """What ``function`` does, including its derivatives, to tensors of these shapes; others are constants."""
    with torch.enable_grad(), precision.without_onednn():
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


class Replayed:
    """``function()`` as a CUDA graph. It must read and write the same tensors at every call, and must not wait for
    the device. Every call does the work once, whether it runs, records or replays it."""

    def __init__(self, function: Callable[[], None], generator: torch.Generator):
        """``generator`` is the one that ``function`` draws from; its stream is the same as without a graph."""
        self.function, self.generator = function, generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.graph is None and self.calls < EAGER_CALLS:
            self._run_on_side_stream()
        else:
            if self.graph is None:
                self.graph = self._record()
            self.graph.replay()
        self.calls += 1

    def _run_on_side_stream(self) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self.function()
        current.wait_stream(side)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        # on a stream of its own: what is recorded on one stream shares cuBLAS's workspace, and must never run at once
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
            self.function()
        return graph
