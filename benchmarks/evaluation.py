"""Evaluation: draws per second of the NLL, ours, JAX's and pythae's on the same weights, and the full test's time."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks import breakdown, ceiling, flops, jax_peer, pythae_peer, workload
from benchmarks.apart import Elsewhere
from benchmarks.report import Section, at_least, at_most, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, number, race
from iwae.bounds import Bound
from iwae.data.datasets import Dataset
from iwae.evaluation import metrics, sampling, stats
from iwae.model import Model

ALL, ALONE = "ours, `evaluate` (all measures)", "ours, NLL alone"
JAX, AT_ONCE = "JAX, NLL alone", 50  # draws of all images at once
BLOCK = sampling.IMAGES


def measure(settings: BenchmarkSettings) -> Section:
    """The race, the agreement of the two estimates, and in the full mode the whole test set."""
    samples, data = settings.pick(5000, 200), workload.dataset(settings.pick(None, "digits"))
    model = workload.trained(settings.device)
    images = BLOCK * settings.pick(2 * settings.threads, 1)  # blocks for all threads
    x = workload.test_images(data, images).to(settings.device)
    contenders = [
        *ceiling.contenders(settings.device),
        Contender(ALL, _repeat(lambda: metrics.evaluate(model, x, samples=samples, prune=False)), images * samples),
        Contender(ALONE, _repeat(lambda: nll(model, x, samples)), images * samples),
    ]
    peers = {}
    if pythae_peer.INSTALLED:
        peers = {
            f"pythae `get_nll`, {at_once} draws at once": at_once for at_once in settings.pick((100, 1000), (100,))
        }
    with Elsewhere(settings.threads) as elsewhere, Elsewhere(settings.threads) as apart_from_both:
        if jax_peer.INSTALLED and settings.device == "cpu":
            work = apart_from_both.work(in_jax, data.name, images, samples, settings.threads)
            contenders.append(Contender(JAX, work, images * samples))
        for name, at_once in peers.items():
            work = elsewhere.work(theirs, data.name, samples, at_once, settings.device)
            contenders.append(Contender(name, work, samples))
        rates = race(contenders, settings.turns, settings.seconds, settings.device)

    fastest = max((rates[name].median for name in peers), default=None)
    names = [name for name in (ALL, ALONE, JAX, *peers) if name in rates]
    body = [_table(data, rates, names, fastest, samples), "", ceiling.describe(rates)]
    if peers:
        body += ["", _agreement(model, pythae_peer.twin(model), x[: settings.pick(BLOCK, 5)], samples)]
    against_ceiling = whole_rate = None
    if not settings.quick:
        text, against_ceiling, whole_rate = full_test(settings, model, data, samples)
        body += ["", text]
    if settings.device == "cpu":
        whole = next(contender for contender in contenders if contender.name == ALL)
        operations = images * flops.nll(workload.MODEL, samples)
        part = breakdown.Part(whole, operations, whole.unit / rates[ALL].median)
        body += ["", breakdown.measure({ALL: part}, f"{images} images with {samples:,} draws each", settings)]
    if settings.device != "cpu":
        return Section("\n".join(body))
    test = f"NLL of {settings.test_images:,} test images, {samples:,} draws each, all measures"
    targets = (
        at_most(f"{test}, time against the ceiling's", against_ceiling, 1.3),
        *(at_least(f"{test}, against {name}", whole_rate and whole_rate / rates[name].median, 4.5) for name in peers),
    )
    return Section("\n".join(body), targets)


def _table(data: Dataset, rates: dict, names: Sequence[str], fastest: float | None, samples: int) -> str:
    floor = ceiling.best(rates) / (flops.nll(workload.MODEL, samples) / samples)
    rows = []
    for name in names:
        rate = rates[name].median
        peers = (rates[JAX].median if JAX in rates else None, fastest)
        times = ["–" if peer is None else f"{rate / peer:.2f}" for peer in peers]
        rows.append((name, str(rates[name]), *times, f"{100 * rate / floor:.0f} %"))
    return f"""{samples:,} draws from q(h|x) for each of the same test images of `{data.name}`, with the weights of the
IWAE that ships, copied into JAX's and pythae's model. JAX's is one jitted call for all images. pythae's estimate runs
under `no_grad`; by itself it takes 100 draws at once, and "× pythae" is against its faster row. The floor, at which the
matrix products alone would run at the ceiling, is {number(floor)} draws/s.

{table(("estimate", "draws/s", "× JAX", "× pythae", "of the floor"), rows)}"""


def nll(model: Model, x: Tensor, samples: int) -> Tensor:
    """−L_samples of each image, and nothing else: [n], nats."""
    return -metrics.mean_bound(model, x, Bound("iwae"), samples)


def difference(model: Model, peer: nn.Module, x: Tensor, samples: int) -> Tensor:
    """Our NLL minus pythae's, image by image [n], nats; the noise of both estimates is in it."""
    torch.manual_seed(0)  # pythae draws from torch's own generator
    at_once = min(samples, 100)
    theirs = [pythae_peer.nll(peer, image.unsqueeze(0), samples, at_once) for image in x]
    return nll(model, x, samples).cpu().double() - torch.tensor(theirs, dtype=torch.float64)


def full_test(settings: BenchmarkSettings, model: Model, data: Dataset, samples: int) -> tuple[str, float, float]:
    """Our time for the whole test set, between two looks at the ceiling: text, ratio, and draws per second."""

    def best() -> float:
        return ceiling.best(
            race(ceiling.contenders(settings.device), settings.turns, settings.seconds / 3, settings.device)
        )

    x = workload.test_images(data, settings.test_images).to(settings.device)
    before, started = best(), time.perf_counter()
    metrics.evaluate(model, x, samples=samples, prune=False)  # ends with its numbers on the CPU
    seconds = time.perf_counter() - started
    operations, rate = flops.nll(workload.MODEL, samples) * len(x), len(x) * samples / seconds
    limit = operations / ((before + best()) / 2)
    text = (
        f"The full test, {len(x):,} images with {samples:,} draws each ({operations:.3g} FLOP), all measures: "
        f"{seconds:.0f} s,\n{number(rate)} draws/s; at the ceiling, the mean of those before and after: {limit:.0f} s. "
        f"Ratio {seconds / limit:.2f}."
    )
    return text, seconds / limit, rate


def _agreement(model: Model, peer: nn.Module, x: Tensor, samples: int) -> str:
    gap, se = stats.mean_se(difference(model, peer, x, samples))
    return (
        f"The same number: over {len(x)} images our NLL minus pythae's is {gap:+.4f} ± {se:.4f} nats "
        f"({abs(gap) / se:.1f} standard errors of the\npaired difference)."
    )


def _repeat(call: Callable[[], object]) -> Callable[[int], None]:
    def work(n: int) -> None:
        for _ in range(n):
            call()

    return work


def in_jax(name: str, images: int, samples: int, threads: int) -> Callable[[int], None]:
    """JAX's estimate for so many images, as often as it is asked."""
    jax_peer.limit_threads(threads)
    x = workload.test_images(workload.dataset(name), images).numpy()
    return jax_peer.estimator(workload.trained(), x, samples, AT_ONCE)


def theirs(name: str, samples: int, at_once: int, device: str) -> Callable[[int], None]:
    """pythae's estimate, of so many images one by one, as it takes them."""
    peer, x = pythae_peer.twin(workload.trained(device)), workload.test_images(workload.dataset(name), BLOCK).to(device)

    def work(n: int) -> None:
        pythae_peer.nll(peer, x[torch.arange(n) % len(x)], samples, at_once)

    return work
