"""A command written from settings, read by the command line, gives the settings again."""

import dataclasses
import shlex

import pytest

from iwae.bounds import OBJECTIVES, Bound
from iwae.cli import evaluate, train
from iwae.training import commands
from iwae.training.config import SCHEDULES, TrainConfig


def every_parameter(objective: str) -> TrainConfig:
    """With the parameters of the objective at their defaults."""
    values = {name: parameter.default for name, parameter in OBJECTIVES[objective].parameters.items()}
    return TrainConfig(objective=objective, k=Bound(objective, values).draws or 50, **values)


CONFIGS = [
    TrainConfig(),
    TrainConfig(dataset="mnist-fixed", model="20,10:5", objective="vae", k=1, gradient="stl", seed=4_294_967_295),
    TrainConfig(objective="power-mean", p=-2.5, resample=3, epochs=7, learning_rate=1e-3 / 3, adam_eps=1e-8),
    TrainConfig(objective="renyi", alpha=0.75),
    *(every_parameter(name) for name in OBJECTIVES),
    TrainConfig(objective="l-alpha", alpha=4, kl_warmup=2, epochs=2),
    TrainConfig(objective="l-alpha", alpha=0.25, schedule="paper", minutes=0.1, batch_size=20, ema=0.999),
    TrainConfig(objective="ciwae", beta=0.05, k=64, schedule="constant", weight_decay=1e-6, patience=10),
    TrainConfig(k1=5, k2=10, gradient="piwae", validate_every=2, valid_images=10_000, log_every=7),
    TrainConfig(
        warm_k=3, warm_share=0.123456789, precision="bfloat16", input_dropout=0.1, start="a folder/it's one.safetensors"
    ),
    *(TrainConfig(schedule=name, epochs=50, learning_rate=1e-3, adam_eps=1e-4) for name in SCHEDULES),
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_train_round_trip(config):
    line = commands.train(config, "out folder/model.safetensors")
    program, words = shlex.split(line)[:4], shlex.split(line)[4:]
    assert program == ["python", "-m", "iwae", "train"]
    read = train.parse(words)
    assert read.config == config and str(read.out) == "out folder/model.safetensors"


def test_the_round_trips_cover_every_setting():
    changed = set()
    for config in CONFIGS:
        changed |= {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    assert changed == {field.name for field in dataclasses.fields(TrainConfig)}


def test_only_what_differs_is_said():
    assert commands.train(TrainConfig()) == "python -m iwae train"
    assert commands.train_words(TrainConfig(schedule="paper")) == ["--schedule", "paper"]
    assert commands.train_words(TrainConfig(k=7, objective="ciwae", beta=0.5)) == [
        "--objective",
        "ciwae",
        "--k",
        "7",
        "--beta",
        "0.5",
    ]
    assert commands.train_words(TrainConfig(epochs=51)) == ["--epochs", "51"]


def test_evaluate_halves_what_was_halved():
    words = shlex.split(commands.evaluate("a", "digits", {"samples": 5, "images": 300, "seed": 0}, half=True))
    assert evaluate.parse(words[4:]).half


def test_evaluate_round_trip():
    for metrics in ({"samples": 5000, "images": 300, "seed": 0}, {"samples": 7, "images": 20, "seed": 3}):
        words = shlex.split(commands.evaluate("a model.safetensors", "digits", metrics))[4:]
        read = evaluate.parse(words)
        assert (read.samples, read.images or 300, read.seed) == tuple(metrics.values())
        assert read.save and not read.half and str(read.checkpoint) == "a model.safetensors"
