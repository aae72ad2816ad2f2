"""Training: images per second of whole steps, ours and pythae's, and how close they come to the machine's ceiling."""

from collections.abc import Callable

from benchmarks import breakdown, ceiling, flops, pythae_peer, workload
from benchmarks.apart import Elsewhere
from benchmarks.report import Section, at_least, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, Rate, number, race
from iwae.data.datasets import Dataset
from iwae.kernels import cuda_graphs
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
JUDGED = ((1, 100), (50, 100))  # k and batch size that have targets: their steps are taken apart
AIMS = {(1, EXACT): 1.5, (50, EXACT): 2.2, (50, RESAMPLED): 5.5}  # times pythae's rate, by k and trainer; batch 100
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
        end = training.step + steps * unit(device)
        for _ in training.run(stop=lambda: training.step >= end):
            pass

    return work


def theirs(name: str, k: int, batch: int, kind: str, device: str) -> Callable[[int], None]:
    """So many steps of pythae's trainer."""
    return pythae_peer.trainer(workload.MODEL, workload.dataset(name).binary("train"), k, batch, kind, device)


def unit(device: str) -> int:
    """Steps that our trainer makes at once."""
    return cuda_graphs.BURST if device == "cuda" else 1


def measure(settings: BenchmarkSettings) -> Section:
    """Every k and batch size in the same rounds."""
    data = workload.dataset(settings.pick(None, "digits"))
    cells = [
        (k, batch) for k in settings.k or settings.pick((1, 5, 50), (1, 5)) for batch in settings.pick((20, 100), (20,))
    ]
    contenders = [*ceiling.contenders(settings.device)]
    for k, batch in cells:
        images = batch * unit(settings.device)
        for name, (resample, kind) in OURS.items():
            if resample < k and MATMUL_PRECISIONS[kind] in (None, settings.device):
                work = ours(data, k, batch, resample=resample, precision=kind, device=settings.device)
                contenders.append(Contender((k, batch, name), work, images))
    with Elsewhere(settings.threads) as elsewhere:
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


def ratio(rates: dict, k: int, batch: int, name: str) -> float | None:
    """Of images per second to pythae's; None where either was not measured."""
    peer = fastest_peer(rates, k, batch)
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
    resample, _ = OURS.get(name, (0, None))
    return (flops.resampled if resample else flops.exact)(workload.MODEL, k)


def _body(data: Dataset, cells: list[tuple[int, int]], rates: dict[tuple, Rate]) -> str:
    rows = []
    for k, batch in cells:
        for name in (*OURS, *PEERS.values()):
            if (rate := rates.get((k, batch, name))) is None:
                continue
            times = ratio(rates, k, batch, name)
            floor = _floor(rates, k, name)
            rows.append(
                (
                    *(f"{k}", f"{batch}", name, str(rate), "–" if times is None else f"{times:.2f}"),
                    *(f"{_flop(k, name) / 1e6:.3g}", number(floor), f"{share(rates, k, batch, name):.0f} %"),
                )
            )
    header = ("k", "batch", "trainer", "images/s", "× pythae", "MFLOP/image", "floor, images/s", "of the floor")
    return f"""Whole training steps (data, loss, gradient, Adam) of 784 → 200 → 200 → 50 and its mirror, on
`{data.name}`: ours by `Training.run`, pythae's by its own `BaseTrainer.train_step`, with networks written as its
documentation asks and `bce`. "× pythae" is against its IWAE; for k = 1 against the faster of its IWAE and its VAE. The
floor is the ceiling divided by the operations of the matrix products (`benchmarks/flops.py`), float32's for all rows.

{table(header, rows)}

{ceiling.describe(rates)}{_asked(rates)}"""


def _asked(rates: dict) -> str:
    """How close to the floor the aims are, where pythae was measured."""
    rows = []
    for (k, name), aim in AIMS.items():
        if peer := fastest_peer(rates, k, 100):
            part = 100 * aim * peer / _floor(rates, k, name)
            rows.append((f"k = {k}, {name}, {aim:g}×", number(aim * peer), f"{part:.0f} %"))
    head = (
        "What the aims ask for, by pythae's rate in the same rounds; what is above 100 % no float32 product can reach."
    )
    return f"\n\n{head}\n\n{table(('aim, batch 100', 'images/s', 'of the floor'), rows)}" if rows else ""


def _targets(rates: dict) -> tuple:
    targets = [at_least("k = 1, batch 100, against pythae", ratio(rates, 1, 100, EXACT), AIMS[1, EXACT])]
    for products in ("", BFLOAT16):
        exact, resampled, cell = EXACT + products, RESAMPLED + products, "k = 50, batch 100"
        of_exact, of_resampled = (ratio(rates, 50, 100, name) for name in (exact, resampled))
        targets += [
            at_least(f"{cell}, exact gradient{products}, against pythae", of_exact, AIMS[50, EXACT]),
            at_least(f"{cell}, resampled{products}, against pythae", of_resampled, AIMS[50, RESAMPLED]),
            at_least(f"{cell}, resampled{products}, of its floor", share(rates, 50, 100, resampled), 70, " %"),
        ]
    return tuple(targets)


def _gpu_targets(rates: dict) -> tuple:
    return tuple(
        at_least(f"k = 50, batch {batch}, {name}, against pythae", ratio(rates, 50, batch, name), 10)
        for batch in (20, 100)
        for name in (EXACT, EXACT + TF32)
    )
