"""Models with cards as training and evaluation write them, their numbers chosen by the test."""

from dataclasses import asdict
from pathlib import Path

from iwae.catalog import Entry
from iwae.checkpoints import Card
from iwae.model import ModelConfig
from iwae.training.config import TrainConfig

NAMES = ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "ess", "pruned_nll")


def measured(nll: float = 87.0, se: float = 0.2, **more) -> dict:
    """A summary as evaluation.Metrics.summary() gives it."""
    values = {"nll": nll, "elbo": -95.0, "reconstruction": 75.0, "kl_prior": 20.0, "kl_posterior": 8.0}
    metrics = values | {"ess": 20.0, "pruned_nll": nll} | {f"{name}_se": se for name in NAMES}
    units = {"active_units": [25], "pca_active_units": [24]}
    return metrics | units | {"images": 10_000, "samples": 5000, "seed": 0} | more


def entry(key: str, metrics: dict | None = None, progress: dict | None = None, **settings) -> Entry:
    """A model of these settings; ``run:`` in its key makes it one of the user's."""
    config = TrainConfig(**{"dataset": "mnist-fixed"} | settings)
    progress = {"epochs": 10.0, "seconds": 600.0, "device": "cpu", "finished": True, "history": []} | (progress or {})
    card = Card(ModelConfig.parse(config.model), asdict(config), progress, measured() if metrics is None else metrics)
    return Entry(key, Path("checkpoints") / f"{key}.safetensors", card)


def catalogue(*found: Entry) -> dict[str, Entry]:
    return {one.key: one for one in found}
