"""Products of float32 matrices on a CUDA device: in full, or on its tensor cores (TF32: factors of 11 bits, sums in
float32), several times as fast. The setting is the whole process's, so it changes under a lock only.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()


@contextmanager
def tf32() -> Iterator[None]:
    """On tensor cores, as long as nobody needs them in full."""
    with _lock:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def full() -> Iterator[None]:
    """In full, whatever other threads do; PyTorch's own default."""
    with _lock:
        yield
