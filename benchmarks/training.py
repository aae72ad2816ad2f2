"""Training: images per second of whole steps, ours, JAX's and pythae's, and how close they come to the ceiling."""

from collections.abc import Callable

import torch

from benchmarks import breakdown, ceiling, flops, jax_peer, pythae_peer, workload
from benchmarks.apart import Elsewhere
from benchmarks.report import Section, at_least, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, Rate, number, race
from iwae.data.datasets import Dataset
from iwae.kernels import gpu
from iwae.kernels.precision import MATMUL_PRECISIONS
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

EXACT, RESAMPLED = "ours, exact gradient", "ours, DReG, 1 draw of k backward"
BFLOAT16, TF32 = ", bfloat16 products", ", TF32 products"
OURS = {  # draws of k that go backward, 0 for all, and products, which must be for the device
    EXACT: (0, "float32"),
    EXACT + BFLOAT16: (0, "bfloat16"),
    EXACT + TF32: (0, "tf32"),
    RESAMPLED: (1, "float32"),
    RESAMPLED + BFLOAT16: (1, "bfloat16"),
}
PEERS = {"iwae": "pythae IWAE", "vae": "pythae VAE"}
JAX, JAX_RESAMPLED = "JAX, exact gradient", "JAX, DReG, 1 draw of k backward"
RIVALS = {EXACT: JAX, RESAMPLED: JAX_RESAMPLED}  # the same estimator, float32
JUDGED = ((1, 100), (50, 100))  # k and batch size that have targets: their steps are taken apart
AHEAD = 1.05  # times JAX's rate, in every cell of batch 100
SHARES = {(1, EXACT): 60, (50, EXACT): 85, (50, RESAMPLED): 75}  # per cent of the floor, by k and trainer; batch 100
NEVER = 10**6  # epochs: no validation, no end


def ours(
    data: Dataset, k: int, batch: int, *, resample: int = 0, precision: str = "float32", device: str = "cpu"
) -> Callable[[int], None]:
    """A run of our trainer on ``data``: a function that trains so many steps, with all that belongs to a step; on a GPU
    so many times the steps of one recorded graph."""
    config = TrainConfig(
        dataset=data.name,
        model=str(workload.MODEL),
        objective="vae" if k == 1 else "iwae",
        k=k,
        gradient="dreg" if resample else "exact",
        resample=resample,
        precision=precision,
        warm_k=0,
        batch_size=batch,
        schedule="constant",
        epochs=NEVER,
        validate_every=NEVER,
        log_every=NEVER,
    )
    training = Training(config, data, device)

    def work(steps: int) -> None:
        training.threads = torch.get_num_threads()  # a breakdown is of one, which the run would not have kept to
        end = training.step + steps * unit(device)
        for _ in training.run(stop=lambda: training.step >= end):
            pass

    return work


def theirs(name: str, k: int, batch: int, kind: str, device: str) -> Callable[[int], None]:
    """So many steps of pythae's trainer."""
    return pythae_peer.trainer(workload.MODEL, workload.dataset(name).binary("train"), k, batch, kind, device)


def in_jax(name: str, k: int, batch: int, resample: bool, threads: int) -> Callable[[int], None]:
    """So many times ``scanned(k)`` steps of JAX's trainer."""
    jax_peer.limit_threads(threads)
    images = workload.dataset(name).binary("train").numpy()
    return jax_peer.trainer(workload.MODEL, images, k, batch, resample, scanned(k))


def scanned(k: int) -> int:
    """Steps in one call of JAX's: enough that a call's own cost does not show."""
    return 100 if k < 50 else 10


def unit(device: str) -> int:
    """Steps that our trainer makes at once."""
    return gpu.BURST if device == "cuda" else 1


def measure(settings: BenchmarkSettings) -> Section:
    """Every k and batch size in the same rounds."""
    data = workload.dataset(settings.pick(None, "digits"))
    cells = [
        (k, batch)
        for k in settings.k or settings.pick((1, 5, 50), (1, 5))
        for batch in settings.pick((20, 100, 500), (20,))
    ]
    contenders = [*ceiling.contenders(settings.device)]
    for k, batch in cells:
        images = batch * unit(settings.device)
        for name, (resample, kind) in OURS.items():
            if resample < k and MATMUL_PRECISIONS[kind] in (None, settings.device):
                work = ours(data, k, batch, resample=resample, precision=kind, device=settings.device)
                contenders.append(Contender((k, batch, name), work, images))
    with Elsewhere(settings.threads) as elsewhere, Elsewhere(settings.threads) as apart_from_both:
        for k, batch in cells if jax_peer.INSTALLED and settings.device == "cpu" else ():
            for name in (JAX, JAX_RESAMPLED) if k > 1 else (JAX,):
                given = (data.name, k, batch, name == JAX_RESAMPLED, settings.threads)
                work = apart_from_both.work(in_jax, *given)
                contenders.append(Contender((k, batch, name), work, batch * scanned(k)))
        for k, batch in cells if pythae_peer.INSTALLED else ():
            for kind in ("iwae", "vae") if k == 1 else ("iwae",):
                work = elsewhere.work(theirs, data.name, k, batch, kind, settings.device)
                contenders.append(Contender((k, batch, PEERS[kind]), work, batch))
        rates = race(contenders, settings.turns, settings.seconds, settings.device)
    body = _body(data, cells, rates)
    if settings.device != "cpu":
        return Section(body, _gpu_targets(rates))
    apart = [cell for cell in cells if cell in JUDGED] or cells[-1:]
    parts = [_breakdown(contenders, cell, rates, settings) for cell in apart]
    return Section("\n\n".join([body, *parts]), _targets(rates))


def _breakdown(contenders: list[Contender], cell: tuple[int, int], rates: dict, settings: BenchmarkSettings) -> str:
    """The steps of a cell, taken apart."""
    k, batch = cell
    parts = {
        contender.name[-1]: breakdown.Part(
            contender, batch * _flop(k, contender.name[-1]), batch / rates[contender.name].median
        )
        for contender in contenders
        if contender.name[:2] == (k, batch) and contender.name[-1] in OURS
    }
    return breakdown.measure(parts, f"a step of {batch} images, k = {k},", settings)


def fastest_peer(rates: dict, k: int, batch: int) -> float | None:
    """Images per second of pythae's IWAE, or for k = 1 of its VAE where that is faster; None without pythae."""
    found = [rates[k, batch, name].median for name in PEERS.values() if (k, batch, name) in rates]
    return max(found, default=None)


def jax_rate(rates: dict, k: int, batch: int, name: str) -> float | None:
    """Images per second of JAX's trainer with the estimator of that row; None where it was not measured."""
    rival = JAX_RESAMPLED if name.startswith((RESAMPLED, JAX_RESAMPLED)) else JAX
    return rates[k, batch, rival].median if (k, batch, rival) in rates else None


def over(rates: dict, k: int, batch: int, name: str, peer: float | None) -> float | None:
    """A row's images per second over a peer's; None where either was not measured."""
    return rates[k, batch, name].median / peer if peer and (k, batch, name) in rates else None


def share(rates: dict, k: int, batch: int, name: str) -> float | None:
    """Per cent of the images per second at which the matrix products alone would run at the ceiling."""
    if (k, batch, name) not in rates:
        return None
    return 100 * rates[k, batch, name].median / _floor(rates, k, name)


def _floor(rates: dict, k: int, name: str) -> float:
    """Those images per second."""
    return ceiling.best(rates) / _flop(k, name)


def _flop(k: int, name: str) -> int:
    resampled = name.startswith((RESAMPLED, JAX_RESAMPLED))
    return (flops.resampled if resampled else flops.exact)(workload.MODEL, k)


def _body(data: Dataset, cells: list[tuple[int, int]], rates: dict[tuple, Rate]) -> str:
    rows = []
    for k, batch in cells:
        for name in (*OURS, JAX, JAX_RESAMPLED, *PEERS.values()):
            if (rate := rates.get((k, batch, name))) is None:
                continue
            peers = jax_rate(rates, k, batch, name), fastest_peer(rates, k, batch)
            times = [over(rates, k, batch, name, peer) for peer in peers]
            rows.append(
                (
                    *(f"{k}", f"{batch}", name, str(rate), *("–" if each is None else f"{each:.2f}" for each in times)),
                    *(f"{_flop(k, name) / 1e6:.3g}", number(_floor(rates, k, name))),
                    f"{share(rates, k, batch, name):.0f} %",
                )
            )
    header = (
        "k",
        "batch",
        "trainer",
        "images/s",
        "× JAX",
        "× pythae",
        "MFLOP/image",
        "floor, images/s",
        "of the floor",
    )
    return f"""Whole training steps (data, loss, gradient, Adam) of 784 → 200 → 200 → 50 and its mirror, on
`{data.name}`: ours by `Training.run`; JAX's by `lax.scan` over steps inside one jitted call with donated buffers, the
data on the device and optax's Adam (`benchmarks/jax_peer.py`); pythae's by its own `BaseTrainer.train_step`, with
networks written as its documentation asks and `bce`. "× JAX" is against its row of the same estimator; "× pythae" is
against its IWAE, for k = 1 against the faster of its IWAE and its VAE. The floor is the ceiling divided by the
operations of the matrix products (`benchmarks/flops.py`), float32's for all rows.

{table(header, rows)}

{ceiling.describe(rates)}{_leaders(cells, rates)}"""


def _leaders(cells: list[tuple[int, int]], rates: dict) -> str:
    """Who leads each cell among the float32 trainers of one estimator."""
    rows = []
    for k, batch in cells:
        for estimator, names in (("exact", (EXACT, JAX, *PEERS.values())), ("resampled", (RESAMPLED, JAX_RESAMPLED))):
            found = {name: rates[k, batch, name].median for name in names if (k, batch, name) in rates}
            if len(found) > 1:
                (first, best), (second, next_best), *_ = sorted(found.items(), key=lambda item: -item[1])
                rows.append((f"{k}", f"{batch}", estimator, first, f"{best / next_best:.2f} × {second}"))
    if not rows:
        return ""
    return f"\n\nWho leads, float32:\n\n{table(('k', 'batch', 'gradient', 'first', 'ahead by'), rows)}"


def _targets(rates: dict) -> tuple:
    pairs = [(k, ours) for k in (1, 5, 50) for ours in RIVALS if k > 1 or ours == EXACT]
    ahead = (
        at_least(
            f"k = {k}, batch 100, {ours}, against JAX", over(rates, k, 100, ours, jax_rate(rates, k, 100, ours)), AHEAD
        )
        for k, ours in pairs
    )
    shares = (
        at_least(f"k = {k}, batch 100, {ours}, of its floor", share(rates, k, 100, ours), goal, " %")
        for (k, ours), goal in SHARES.items()
    )
    return (*ahead, *shares)


def _gpu_targets(rates: dict) -> tuple:
    return tuple(
        at_least(
            f"k = 50, batch {batch}, {name}, against pythae",
            over(rates, 50, batch, name, fastest_peer(rates, 50, batch)),
            10,
        )
        for batch in (20, 100)
        for name in (EXACT, EXACT + TF32)
    )
