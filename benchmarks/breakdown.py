"""Where the time goes: the share of matrix products, of everything else that computes, and of Python."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import ceiling
from benchmarks.report import table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, number, race

OPERATIONS = {  # by PyTorch's names, without aten:: or mkldnn:: and without the _ of those in place
    "matrix products": ("_linear_pointwise", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear"),
    "σ, exp, log": (  # oneDNN's products have their tanh with them
        "sigmoid",
        "sigmoid_backward",
        "exp",
        "log",
        "log1p",
        "tanh",
        "softplus",
        "logsumexp",
        "logaddexp",
    ),
    "copies, biases laid down among them": ("copy", "index", "index_select", "gather", "cat", "fill", "zero", "clone"),
    "random numbers": ("normal", "uniform", "bernoulli", "random", "randperm"),
    "Adam": ("_fused_adamw",),
}
OTHERS, BETWEEN = "other operations: products and sums of elements, norms, …", "between operations: Python and autograd"


@dataclass(frozen=True)
class Part:
    """A contender to take apart. Of a unit of its work: the products' ``operations``, and its ``seconds`` on all
    threads."""

    contender: Contender
    operations: float
    seconds: float


def measure(parts: dict[str, Part], unit: str, settings: BenchmarkSettings) -> str:
    """For the report: each part's time on one thread by what takes it, beside its time without the profiler, that of
    its products alone at one thread's ceiling, and its time on all threads."""
    with _one_thread():
        limits = [*ceiling.contenders("cpu"), *(part.contender for part in parts.values())]
        rates = race(limits, settings.turns, settings.seconds / 3)
        each = {name: part.contender.unit / rates[part.contender.name].median for name, part in parts.items()}
        found = {
            name: _profile(part.contender.work, max(1, round(settings.seconds / each[name])))
            for name, part in parts.items()
        }
    lines = [
        (what, [f"{number(part[what])} ({100 * part[what] / sum(part.values()):.0f} %)" for part in found.values()])
        for what in (*OPERATIONS, OTHERS, BETWEEN)
    ]
    lines += [
        ("**all**", [f"**{number(sum(part.values()))}**" for part in found.values()]),
        ("without the profiler", [_ms(seconds) for seconds in each.values()]),
        ("its products alone, at the ceiling", [_ms(p.operations / ceiling.best(rates)) for p in parts.values()]),
        (f"on {settings.threads} threads", [_ms(part.seconds) for part in parts.values()]),
    ]
    return f"""Where the time of {unit} goes on one thread, in milliseconds, by PyTorch's profiler, which makes small
operations a little dearer than they are.

{table(("what", *found), [(what, *cells) for what, cells in lines])}"""


def _ms(seconds: float) -> str:
    return number(1e3 * seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _profile(work: Callable[[int], None], units: int) -> dict[str, float]:
    """Milliseconds of one unit, by what takes them."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        work(units)
        whole = 1e3 * (time.perf_counter() - started) / units
    found = dict.fromkeys((*OPERATIONS, OTHERS), 0.0)
    for event in profiler.key_averages():
        if event.key.startswith(("aten::", "mkldnn::")):
            found[_row(event.key)] += event.self_cpu_time_total / 1e3 / units
    return found | {BETWEEN: max(whole - sum(found.values()), 0.0)}


def _row(operation: str) -> str:
    name = operation.rpartition("::")[2].rstrip("_")
    return next((row for row, names in OPERATIONS.items() if name in names), OTHERS)
