"""Work on a CPU spread over Python threads that compute alone, in the place of torch's own threads.

torch splits every single operation among its threads and waits for all of them after each. With every core to itself
that is as fast as whole blocks of images, each on one thread; but where another process has one of the cores, each of
hundreds of operations may wait for a thread that does not run, and a training step takes 3 to 40 times as long, where
the blocks take 1.5 times. torch lets other Python threads run while an operation computes.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from iwae.system import cores

_here = threading.local()  # count: the threads to spread over, where torch's own are held at one
Function, After = Callable[[Any], Any], Callable[[Any], None]


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """So many threads, which wait for the next call. Asked for where torch's own are held at one.

    Every thread is told at its start that it computes alone: the first product of a new one would found a team of
    OpenMP threads of its own, and with more of those than processors all teams sleep between two operations instead
    of spinning, which makes whatever else the process computes up to 2.5 times as slow.
    """
    pool, all_here = ThreadPoolExecutor(count), threading.Barrier(count)

    def start(number: int) -> None:
        torch.set_num_threads(1)
        all_here.wait()

    list(pool.map(start, range(count)))
    return pool


def count() -> int:
    """Threads that ``spread`` uses when called from this one: as many as torch has, or had before ``held``."""
    return getattr(_here, "count", None) or torch.get_num_threads()


def limit() -> None:
    """Let torch have no more threads than cores are granted, for a whole process: it knows of the affinity mask, but
    not of control groups, which hold up a process that computes on more. OMP_NUM_THREADS, where it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores.count()))


@contextmanager
def held(to: int | None = None) -> Iterator[None]:
    """torch's own threads held at one, between two calls of ``spread``, too, which uses ``to``, by default as many as
    before."""
    outside, before = getattr(_here, "count", None), torch.get_num_threads()
    _here.count = to or count()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _here.count = outside


def spread(function: Function, items: Sequence[Any], after: After = lambda item: None) -> list[Any]:
    """``[function(item) for item in items]``, ``count()`` items at a time.

    ``after(item)`` is called in this thread, in order, when an item is done; what it or ``function`` raises comes
    through when no thread is at work any more.
    """
    if min(count(), len(items)) < 2:
        return one_by_one(function, items, after)
    here = len(items) <= count()  # one of them, then: this thread is awake, which the others have to become
    with held():
        futures = [_pool(count()).submit(function, item) for item in items[here:]]
        try:
            with held(1):
                results = one_by_one(function, items[:here], after)
            pairs = list(zip(items[here:], futures, strict=True))
            return results + one_by_one(lambda pair: pair[1].result(), pairs, lambda pair: after(pair[0]))
        finally:
            for future in futures:
                future.cancel()
            wait(futures)


def aside(function: Callable[[], Any]) -> Future:
    """``function()`` in a thread of its own, while this one goes on; it must be done before the next ``spread``."""
    with held():
        return _pool(count()).submit(function)


def share(number: int, count: int, rows: int) -> slice:
    """Those of ``rows`` that are the share of worker ``number`` of ``count``: as many for each as can be."""
    return slice(rows * number // count, rows * (number + 1) // count)


def one_by_one(function: Function, items: Sequence[Any], after: After = lambda item: None) -> list[Any]:
    """The same in this thread."""
    results = []
    for item in items:
        results.append(function(item))
        after(item)
    return results
