"""Each section in a process of its own, and the peer in another: what one leaves behind, threads above all, could slow
the next.
"""

import importlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.report import Section
from benchmarks.settings import BenchmarkSettings


def measure(name: str, settings: BenchmarkSettings) -> Section:
    """What the section's module finds; a quick run, which measures nothing, stays in this process."""
    if settings.quick:
        return _here(name, settings)
    with _new_process() as new:
        return new.submit(_here, name, settings).result()


def _here(name: str, settings: BenchmarkSettings) -> Section:
    torch.set_num_threads(settings.threads)
    return importlib.import_module(f"benchmarks.{name}").measure(settings)


def _new_process(**start: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), **start)


class Elsewhere:
    """Contenders' work in a new process, in which nothing of ours runs. A context, which ends it."""

    def __init__(self, threads: int):
        self.pool = _new_process(initializer=torch.set_num_threads, initargs=(threads,))

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown()

    def work(self, make: Callable[..., Callable[[int], None]], *given: Any) -> Callable[[int], None]:
        """``make(*given)``, made and called there; ``make`` is a function of a module."""
        number = self.pool.submit(_make, make, given).result()
        return lambda n: self.pool.submit(_call, number, n).result()


_made: list[Callable[[int], None]] = []  # in the new process


def _make(make: Callable[..., Callable[[int], None]], given: tuple) -> int:
    _made.append(make(*given))
    return len(_made) - 1


def _call(number: int, n: int) -> None:
    _made[number](n)
