"""The shortest commands that repeat given settings."""

import dataclasses
import shlex
from contextlib import suppress
from functools import lru_cache
from typing import Any

from iwae.data import datasets
from iwae.training.config import TrainConfig
from iwae.training.wake_sleep import Refit

PROGRAM = ("python", "-m", "iwae")


def train_words(config: TrainConfig) -> list[str]:
    """The options of ``train`` that give exactly this config, without those that follow from the others."""
    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    for name in list(given):
        rest = {other: value for other, value in given.items() if other != name}
        with suppress(ValueError):  # the objective needs it
            given = rest if TrainConfig(**rest) == config else given
    return _options(given)


@lru_cache(maxsize=1000)  # it tries every option; the page of results wants those of the whole grid each time
def train(config: TrainConfig, out: str = "") -> str:
    """The shell command that trains it."""
    return shlex.join([*PROGRAM, "train", *train_words(config), *(["--out", out] if out else [])])


def refit(path: str, settings: Refit) -> str:
    """The shell command that refits the encoder of a checkpoint and replaces the file."""
    given = {name: value for name, value in dataclasses.asdict(settings).items() if value != getattr(Refit, name)}
    return shlex.join([*PROGRAM, "refit", path, *_options(given), "--out", path])


def evaluate(path: str, dataset: str, metrics: dict[str, Any], half: bool = False) -> str:
    """The shell command that measures a checkpoint as ``metrics`` were measured, with weights rounded to float16 if
    ``half``, and keeps the result in its card."""
    words = ["--samples", str(metrics["samples"])]
    if metrics["images"] < datasets.source(dataset).sizes[2]:
        words += ["--images", str(metrics["images"])]
    if metrics["seed"]:
        words += ["--seed", str(metrics["seed"])]
    return shlex.join([*PROGRAM, "evaluate", path, *words, *(["--half"] if half else []), "--save"])


def anneal(path: str, annealed: dict[str, Any]) -> str:
    """The shell command that measures a checkpoint's NLL by annealing as ``annealed``, its card's, was measured."""
    names = {"ais": "temperatures", "chains": "chains", "images": "images", "samples": "samples"}
    names |= {"simulated": "simulated", "seed": "seed"}
    words = _options({option: annealed[name] for option, name in names.items()})
    return shlex.join([*PROGRAM, "evaluate", path, *words, "--save"])


def _options(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
