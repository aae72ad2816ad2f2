"""A step on a CUDA device: compiled into few kernels, recorded once as a CUDA graph and then replayed.

A one-layer model's step is some 200 small kernels. A GPU needs less time for each than Python takes to launch it, so
they are recorded and launched together; and more time to begin each than to do its work, so in long runs they are
compiled into fewer.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

EAGER_CALLS = 2  # on a side stream before the recording, so that libraries have set themselves up
BURST = 20  # steps in one graph, where a pass has so many left: Python need not come in between
LONG = 75_000  # steps of a run from which on compiling, some 20 seconds, is paid back


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


class Compiled:
    """``function`` of tensors of always the same shapes, as few kernels: what it does to tensors that it is not given
    is fixed at the first call."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]):
        self.function, self.compiled = function, None

    @torch.no_grad()
    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        if self.compiled is None:
            with torch.enable_grad():  # its own derivatives are part of what is traced
                graph = make_fx(self.function)(*given)
            self.compiled = torch.compile(graph, fullgraph=True, dynamic=False)
        return self.compiled(*given)


class Replayed:
    """``function()`` as a CUDA graph. It must read and write the same tensors at every call, and must not wait for
    the device. Every call does the work once, whether it runs, records or replays it."""

    def __init__(self, function: Callable[[], None], generator: torch.Generator):
        """``generator`` is the one that ``function`` draws from; it goes on as if nothing were recorded."""
        self.function, self.generator = function, generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.graph is None and self.calls < EAGER_CALLS:
            self._run_aside()
        else:
            if self.graph is None:
                self._record()
            self.graph.replay()
        self.calls += 1

    def _run_aside(self) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self.function()
        current.wait_stream(side)

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        # on a stream of its own: what is recorded on one stream shares cuBLAS's workspace, and must never run at once
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
            self.function()
        self.graph = graph
