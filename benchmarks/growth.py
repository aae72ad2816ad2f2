"""How time and memory grow with draws, images and batch size: the exponent b of c·nᵇ, fitted on logarithms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import training, workload
from benchmarks.probe import Peak, peak
from benchmarks.report import Section, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, race, spread
from iwae.evaluation import metrics, sampling


@dataclass(frozen=True)
class Series:
    """One quantity that grows: its points, what to time at each, and the same as a job of `probe`."""

    title: str
    points: tuple[int, ...]
    work: Callable[[int], Callable[[int], None]]
    job: Callable[[int], tuple[str, dict[str, int]]]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """(b, its standard error) of values = c·sizesᵇ by least squares on the logarithms; needs three points or more."""
    if len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"an exponent needs at least three points, all above 0, not {list(sizes)} and {list(values)}")
    x, y = np.log(sizes), np.log(values)
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x))


def measure(settings: BenchmarkSettings) -> Section:
    """All series, their timings in the same rounds."""
    data = workload.dataset("digits")
    model, fixed = workload.trained(), settings.pick(100, 10)  # draws of the series over images
    most = settings.pick(5000, 10)  # draws of the series within one block
    k = settings.pick(50, 5)

    def evaluates(images: int, samples: int) -> Callable[[int], None]:
        x = workload.test_images(data, images)

        def work(n: int) -> None:
            for _ in range(n):
                metrics.evaluate(model, x, samples=samples, prune=False)

        return work

    def job(images: int, samples: int) -> tuple[str, dict[str, int]]:
        return "evaluate", {"k": samples, "images": images}

    every = [
        Series(
            "draws k, `evaluate` of 20 images",
            settings.pick((50, 500, 5000, 50_000), (50, 100, 200)),
            lambda n: evaluates(20, n),
            lambda n: job(20, n),
        ),
        Series(
            f"images in all, `evaluate` with k = {fixed}",
            settings.pick((100, 400, 1600, 6400), (100, 200, 300)),
            lambda n: evaluates(n, fixed),
            lambda n: job(n, fixed),
        ),
        Series(
            f"images in one block, `evaluate` with k = {most:,}",
            settings.pick((10, 20, 50, 100), (10, 20, 30)),
            lambda n: evaluates(n, most),
            lambda n: job(n, most),
        ),
        Series(
            f"batch of a training step, exact gradient, k = {k}",
            settings.pick((20, 50, 100, 200, 500), (10, 20, 40)),
            lambda n: training.ours(data, k, n),
            lambda n: ("train", {"k": k, "batch": n, "steps": settings.pick(10, 2)}),
        ),
    ]
    contenders = [Contender((series.title, n), series.work(n), 1) for series in every for n in series.points]
    rates = race(contenders, settings.turns, settings.seconds / 3)
    rows = []
    for series in every:
        times = [[1000 / rate for rate in rates[series.title, n].values] for n in series.points]
        peaks = [_peak(series, n, settings.threads) for n in series.points]
        rows += [
            (series.title, f"{n:,}", spread(ms), f"{found.own:.1f}")
            for n, ms, found in zip(series.points, times, peaks, strict=True)
        ]
        medians = [1000 / rates[series.title, n].median for n in series.points]
        slopes = [exponent(series.points, values) for values in (medians, [found.own for found in peaks])]
        rows.append(("", "**exponent**", *(f"**{slope:.2f}** ± {se:.2f}" for slope, se in slopes)))
    block = f"{sampling.IMAGES} images × {sampling.DRAWS} draws"
    body = f"""Exponents b of c·nᵇ by least squares on the logarithms, ± standard error. `evaluate` samples in blocks of
{block}, so its memory should be flat in draws and images. Memory is the peak of a fresh process above its
baseline after imports, data and weights; all on scikit-learn's digits, 28×28.

{table(("what grows", "n", "ms", "own memory, MiB"), rows)}"""
    return Section(body)


def _peak(series: Series, n: int, threads: int) -> Peak:
    name, arguments = series.job(n)
    return peak(name, threads, **arguments)
