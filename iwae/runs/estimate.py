"""How long a run will take, from an earlier run with the same settings or from a short measurement."""

import dataclasses
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from iwae.data import datasets
from iwae.data.datasets import Dataset, Split
from iwae.runs import store, summary
from iwae.runs.queue import RunError
from iwae.training.config import PARAMETERS, TrainConfig
from iwae.training.loop import Training

# What decides the time of a step. (A batch of another data set takes as long.)
DECISIVE = (
    *("model", "objective", "k", "warm_k", "warm_share", "gradient", "resample", "precision", "batch_size", "ema"),
    *("input_dropout", *PARAMETERS),
)
LATELY = 50  # runs that are looked at, the newest
LONG_ENOUGH = 5.0  # seconds of training from which on a run's speed counts
MEASURED_SECONDS = 0.2  # of each kind of step
ALIKE: dict[str, Any] = {  # settings that decide no step
    "dataset": "mnist-5k", "epochs": 1000, "minutes": None, "kl_warmup": 0, "seed": 0, "learning_rate": 1e-3,
    "start": None,
}  # fmt: skip
MOST_DRAWS = 1000  # for each image, beyond which a measurement itself would take too long


@dataclass(frozen=True)
class Speed:
    """Images a second that a training sees, and how that is known."""

    images: float
    basis: str


def speed(config: TrainConfig) -> Speed | None:
    """The speed of a run on this machine's CPU: of the newest earlier run with the same decisive settings, else
    measured in half a second; None where neither is possible. Raises NotEnoughMemoryError."""
    wanted = _decisive(config)
    for run in store.list_runs()[:LATELY]:
        try:
            if run.device != "cpu" or _decisive(run.config) != wanted:
                continue
            records = summary.read(run).records
        except RunError:
            continue
        if records and records[-1].seconds > LONG_ENOUGH:
            images = records[-1].epochs * datasets.source(run.config.dataset).sizes[0]
            return Speed(images / records[-1].seconds, "as fast as an earlier run with these settings")
    if config.k > MOST_DRAWS:
        return None
    share = config.warm_share if config.warm_k else 0.0
    seconds = sum(
        part * _seconds_per_image(dataclasses.replace(config, warm_share=warm, **ALIKE))
        for part, warm in ((share, 1.0), (1 - share, 0.0))
        if part
    )
    return Speed(1 / seconds, "measured just now, for a moment and with one thread")


def seconds(config: TrainConfig, found: Speed) -> float:
    """How long the training takes at this speed, without the test at its end."""
    needed = config.epochs * datasets.source(config.dataset).sizes[0] / found.images
    return min(needed, 60 * config.minutes) if config.minutes else needed


def _decisive(config: TrainConfig) -> tuple:
    return tuple(getattr(config, name) for name in DECISIVE)


@lru_cache(maxsize=100)
def _seconds_per_image(config: TrainConfig) -> float:
    """Of plain steps on random images; the first one is not counted."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(4 * config.batch_size, 100), config.model_config.pixels)
    split = Split(255 * torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8), None)
    data = Dataset(config.dataset, "random images", split, split, split, True, (), config.model_config.shape)
    training = Training(config, data, engine="plain")
    training.advance()
    started, images = time.perf_counter(), 0
    while not images or time.perf_counter() - started < MEASURED_SECONDS:
        training.advance()
        images += config.batch_size
    return (time.perf_counter() - started) / images
