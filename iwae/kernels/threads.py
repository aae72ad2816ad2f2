"""Work spread over Python threads that compute alone, instead of over torch's own threads.

torch splits every single operation among its threads and waits for all of them after each. On idle cores that is as
fast as whole blocks of images, each on one thread. Where another process runs on one of the cores, each of hundreds of
operations may wait for a thread that is not running, and a training step takes 3 to 40 times as long; the blocks take
1.5 times as long. torch lets other Python threads run while an operation computes.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from iwae.system import cores

_here = threading.local()  # count: the threads of ``parallel_map`` inside ``single_threaded``
Function = Callable[[Any], Any]
After = Callable[[Any], None]


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """``count`` threads that wait for the next call. Created inside ``single_threaded``.

    Each thread is limited to one torch thread when it starts: its first matrix product would otherwise create its own
    team of OpenMP threads. With more of those than processors, all teams sleep between operations instead of spinning,
    which makes everything else in the process up to 2.5 times as slow.
    """
    pool, all_here = ThreadPoolExecutor(count), threading.Barrier(count)

    def start(number: int) -> None:
        torch.set_num_threads(1)
        all_here.wait()

    list(pool.map(start, range(count)))
    return pool


def count() -> int:
    """Threads that ``parallel_map`` uses: as many as torch has, or had before ``single_threaded``."""
    return getattr(_here, "count", None) or torch.get_num_threads()


def limit() -> None:
    """Let torch have no more threads than cores are granted, for a whole process: it knows of the affinity mask, but
    not of control groups, which hold up a process that computes on more. OMP_NUM_THREADS, where it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores.count()))


@contextmanager
def single_threaded(parallel: int | None = None) -> Iterator[None]:
    """torch computes on one thread, also between calls of ``parallel_map``, which uses ``parallel`` threads, by default
    as many as before."""
    outside, before = getattr(_here, "count", None), torch.get_num_threads()
    _here.count = parallel or count()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _here.count = outside


def parallel_map(function: Function, items: Sequence[Any], after: After = lambda item: None) -> list[Any]:
    """``[function(item) for item in items]``, ``count()`` items at a time.

    ``after(item)`` is called in this thread, in order, when an item is done. An exception in it or in ``function`` is
    raised when no thread is running any more.
    """
    if min(count(), len(items)) < 2:
        return serial_map(function, items, after)
    here = len(items) <= count()  # then this thread takes one item: it is awake, and the others have to be woken
    with single_threaded():
        futures = [_pool(count()).submit(function, item) for item in items[here:]]
        try:
            with single_threaded(1):
                results = serial_map(function, items[:here], after)
            pairs = list(zip(items[here:], futures, strict=True))
            return results + serial_map(lambda pair: pair[1].result(), pairs, lambda pair: after(pair[0]))
        finally:
            for future in futures:
                future.cancel()
            wait(futures)


def serial_map(function: Function, items: Sequence[Any], after: After = lambda item: None) -> list[Any]:
    """The same in this thread alone."""
    results = []
    for item in items:
        results.append(function(item))
        after(item)
    return results


def share(number: int, count: int, rows: int) -> slice:
    """The share of worker ``number`` of ``count`` in so many rows; shares differ by one row at most."""
    return slice(rows * number // count, rows * (number + 1) // count)
