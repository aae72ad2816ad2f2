"""A step on a CUDA device, recorded once as a CUDA graph and then replayed: one launch instead of hundreds.

A one-layer model's step is some 200 small kernels, each of which takes a GPU less time than Python takes to launch it.
"""

import threading
from collections.abc import Callable
from functools import cache

import torch

from iwae import precision

EAGER_CALLS = 2  # on a side stream before the recording, so that libraries have set themselves up
BURST = 20  # steps in one graph, where a pass has so many left: Python need not come in between

_recording = threading.Lock()  # one at a time: other threads (iwae/lanes.py) may go on meanwhile, but not record
_stream = cache(torch.cuda.Stream)  # for all, of the 32 that PyTorch hands out in turn


class Replayed:
    """``function()`` as a CUDA graph. It must read and write the same tensors at every call, and must not wait for
    the device. Every call does the work once, whether it runs, records or replays it."""

    def __init__(self, function: Callable[[], None], generator: torch.Generator):
        """``generator`` is the one that ``function`` draws from; it goes on as if nothing were recorded."""
        self.function, self.generator = function, generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.graph is None:
            with _recording:
                self._run_aside() if self.calls < EAGER_CALLS else self._record()
        if self.graph is not None:
            self.graph.replay()
        self.calls += 1

    def _run_aside(self) -> None:
        current, side = torch.cuda.current_stream(), _stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self.function()
        current.wait_stream(side)

    def _record(self) -> None:
        """With products on tensor cores."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with precision.tf32(), torch.cuda.graph(graph, stream=_stream(), capture_error_mode="thread_local"):
            self.function()
        self.graph = graph
