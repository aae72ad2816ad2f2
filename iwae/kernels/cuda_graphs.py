"""A training step on a CUDA device, recorded once as a CUDA graph and then replayed.

A step is many small kernels (``tracing.Compiled`` makes them fewer). A GPU runs each of them in less time than Python
takes to launch it, so they are recorded and launched together.
"""

from collections.abc import Callable

import torch

EAGER_CALLS = 2  # on a side stream before the recording, so that libraries have set themselves up
BURST = 20  # steps in one graph while an epoch has so many left: fewer returns to Python


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
