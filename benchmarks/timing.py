"""Contenders timed in turns, so that whatever else the machine does meets them all alike."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Contender:
    """Something to time: ``work(n)`` does n units, each of which counts as ``unit`` images, draws or operations."""

    name: Hashable
    work: Callable[[int], None]
    unit: float


@dataclass(frozen=True)
class Rate:
    """Images, draws or operations per second, one value for each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return spread(self.values)


def spread(values: Sequence[float]) -> str:
    """``median (least–greatest)`` in three digits or whole numbers."""
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def number(value: float) -> str:
    """Three digits, and thousands whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def race(contenders: Sequence[Contender], rounds: int, seconds: float, device: str = "cpu") -> dict[Hashable, Rate]:
    """Time every contender in every round, for about ``seconds`` each and at least one unit, after a warm-up."""
    units = {contender.name: _calibrate(contender, seconds, device) for contender in contenders}
    values = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            n = units[contender.name]
            values[contender.name].append(n * contender.unit / _seconds(contender, n, device))
    return {name: Rate(tuple(rates)) for name, rates in values.items()}


def _calibrate(contender: Contender, seconds: float, device: str) -> int:
    """How many units take that long."""
    n = 1
    contender.work(n)
    while (taken := _seconds(contender, n, device)) < seconds / 4:
        n *= 2
    return max(1, math.ceil(n * seconds / taken))


def _seconds(contender: Contender, n: int, device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    contender.work(n)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    """Until the device has done what it was asked to."""
    if device != "cpu":
        torch.cuda.synchronize()
