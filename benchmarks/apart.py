"""Each section in a process of its own.

What one leaves behind, such as threads that torch keeps, would slow the next.
"""

import importlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from benchmarks.report import Section
from benchmarks.settings import Settings


def measure(name: str, settings: Settings) -> Section:
    """What the section's module finds; a quick run, which measures nothing, stays in this process."""
    if settings.quick:
        return _here(name, settings)
    with ProcessPoolExecutor(1, get_context("spawn")) as new:
        return new.submit(_here, name, settings).result()


def _here(name: str, settings: Settings) -> Section:
    torch.set_num_threads(settings.threads)
    return importlib.import_module(f"benchmarks.{name}").measure(settings)
