"""How surprising an image is: its place among the test images, from the quantiles in a card."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from benchmarks import letters
from iwae import checkpoints
from iwae.__main__ import main
from iwae.checkpoints import Card, CheckpointError
from iwae.evaluation import metrics, surprise
from iwae.model import Model, ModelConfig


def test_the_share_is_that_of_the_test_images_below():
    """Of 1,001 known values the share is exact at each of the 101 quantiles, and off by at most 1% between."""
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0)).double() * 20 + 90
    kept = surprise.from_card({"quantiles": surprise.quantiles(values, 500, 3)})
    assert kept is not None and (kept.images, kept.samples, kept.seed) == (1001, 500, 3)
    assert kept.share_below(values.min().item() - 1) == 0 and kept.share_below(values.max().item() + 1) == 1
    for value in values[:50].tolist():
        assert kept.share_below(value) == pytest.approx((values < value).double().mean().item(), abs=0.01)
    assert f"50% {values.median().item():.2f}" in kept.in_words()
    assert surprise.quantiles(values[:19], 500, 3) is None and surprise.from_card({}) is None


def test_evaluate_keeps_them_in_the_card_and_the_card_its_other_measures(tmp_path, capsys):
    path = tmp_path / "small.safetensors"
    model = Model(ModelConfig.parse("8:4"), seed=0)
    checkpoints.save(path, model, Card(model.config, {"dataset": "digits"}, metrics={"nll": 123.0}))
    words = ["evaluate", str(path), "--samples", "20", "--images", "50", "--seed", "2", "--quantiles"]
    assert main([*words, "--save"]) == 0
    assert "−L_20 of 50 test images of digits, seed 2, nats" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = checkpoints.read_card(path).metrics
    assert kept == {"nll": 123.0, "quantiles": found["quantiles"]}
    assert main([word for word in [*words, "--json"] if word != "--quantiles"]) == 0  # of all measures, the same draws
    assert json.loads(capsys.readouterr().out)["quantiles"] == kept["quantiles"]
    assert main([*words, "--images", "19"]) == 2
    assert "--quantiles needs at least 20 images, not 19" in capsys.readouterr().err


def test_they_are_those_of_the_nll():
    model, x = Model(ModelConfig.parse("8:4"), seed=0), (torch.rand(30, 784) < 0.2).float()
    found = metrics.evaluate(model, x, samples=10, seed=1, prune=False)
    expected = np.quantile(found.nll.double().numpy(), np.linspace(0, 1, 101))
    assert found.summary()["quantiles"]["nll"] == pytest.approx(expected.tolist(), abs=6e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"nll": [1.0]}, {"nll": [2.0, 1.0]}, {"nll": [1.0, "2"]}, {"nll": "12"}, {"images": 0}, {"samples": 2.5},
        {"seed": True}, {"nll": [1.0, 1e300]},
    ],
)  # fmt: skip
def test_a_card_with_other_quantiles_is_refused(tmp_path, wrong):
    model = Model(ModelConfig.parse("8:4"), seed=0)
    good = {"nll": [1.0, 2.0, 2.0], "images": 3, "samples": 5, "seed": 0}
    card = Card(model.config, {}, metrics={"quantiles": good})
    checkpoints.save(tmp_path / "good.safetensors", model, card)
    with pytest.raises(CheckpointError, match="its quantiles"):
        checkpoints.save(
            tmp_path / "m.safetensors", model, dataclasses.replace(card, metrics={"quantiles": good | wrong})
        )


def test_the_auc_of_the_benchmark_and_its_clusters(monkeypatch):
    """Against a count of all pairs; where each cluster is one value, twice as many copies do not shrink the error."""
    monkeypatch.setattr(letters, "BOOTSTRAPS", 200)
    random = np.random.default_rng(0)
    digit, other = random.normal(size=200), np.repeat(random.normal(0.5, 1, 30), 4)
    cluster = np.repeat(np.arange(30), 4)
    area, error = letters.auc(digit, other, cluster)
    assert area == pytest.approx((other[:, None] > digit).mean())
    again = letters.auc(digit, np.repeat(other, 2), np.repeat(cluster, 2))
    assert again[0] == pytest.approx(area) and again[1] == pytest.approx(error, rel=0.2) and 0.03 < error < 0.08
