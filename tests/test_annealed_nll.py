"""The NLL of test images by annealing: against closed forms, in the shell, in a card and in the table."""

import dataclasses
import json
import math

import pytest
import torch

from iwae import checkpoints
from iwae.__main__ import main
from iwae.checkpoints import Card, CheckpointError
from iwae.cli import evaluate
from iwae.evaluation import metrics
from iwae.export import model_card
from iwae.inference import ais, annealed_nll
from iwae.model import Model, ModelConfig
from iwae.results import readme, rows, tables
from iwae.training import commands
from tests.cards import catalogue, entry, measured
from tests.linear_gaussian import LinearGaussian

KEPT = {
    "nll": 88.3, "nll_se": 0.7, "nll_draws": 88.9, "nll_draws_se": 0.7, "elbo": -95.1, "elbo_se": 0.8, "missed": 0.6,
    "missed_se": 0.03, "kl_posterior": 6.8, "kl_posterior_se": 0.1, "nll_mc_se": 0.006, "scatter": 0.4,
    "acceptance": 0.9, "gap": 0.02, "gap_se": 0.03, "simulated": 100, "chains": 4, "temperatures": 1000,
    "images": 1000, "samples": 5000, "seed": 0,
}  # fmt: skip


def test_log_p_and_the_divergence_of_a_linear_gaussian_model():
    """log p(x) and D_KL(q ‖ p(h|x)) of a q that is shifted and too narrow are known for every image. L_2 of the same
    images misses most of a nat."""
    model = LinearGaussian()
    with torch.no_grad():
        model.shift += 0.4
        model.log_std -= 0.5
    model.config, model.encoder, model.decoder = ModelConfig(((1,),), (3,), (1, 6)), [None], []
    x = 1.5 * torch.randn(60, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = annealed_nll.measure(model, x, temperatures=100, samples=2, simulated=0, seed=2)
    summary = found.summary()
    posterior_std = (model.log_std + 0.5).exp()
    ratio = math.exp(-1)  # of the variances
    exact = ((ratio + (0.4 / posterior_std).square() - 1 + 1) / 2).sum().item()
    assert found.missed.mean() > 4 * summary["missed_se"] > 0
    assert abs(summary["nll"] + model.log_p(x).mean().item()) < 4 * summary["nll_mc_se"] < 0.1
    assert abs(summary["kl_posterior"] - exact) < 4 * summary["kl_posterior_se"]
    assert summary["kl_posterior"] == pytest.approx(-summary["nll"] - summary["elbo"])
    assert summary["missed"] == pytest.approx(summary["nll_draws"] - summary["nll"])
    assert summary["gap"] is None and summary["simulated"] == 0


def test_it_is_of_the_draws_and_chains_that_it_names():
    model, seen = Model(ModelConfig(hidden=((12,),), latent=(2,), shape=(1, 24)), seed=4), []
    x, _ = ais.simulated(model, 20, seed=9)
    given = {"chains": 3, "temperatures": 60}
    found = annealed_nll.measure(
        model, x, samples=40, simulated=30, seed=5, progress=lambda done, total: seen.append((done, total)), **given
    )
    assert torch.equal(found.annealed.log_w, ais.anneal(model, x, seed=5, **given).log_w)
    assert torch.equal(found.drawn.nll, metrics.evaluate(model, x, samples=40, seed=5).nll)
    assert seen == sorted(seen) and seen[-1] == (50, 50)
    summary = found.summary()
    assert abs(summary["gap"]) < 4 * summary["gap_se"] + 0.05 and summary["simulated"] == 30
    assert set(summary) == set(KEPT)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    model = Model(ModelConfig.parse("8:4"), seed=0)
    checkpoints.save(path, model, Card(model.config, {"dataset": "digits"}, metrics={"nll": 123.0}))
    return path


WORDS = ("--ais", "20", "--chains", "2", "--images", "30", "--samples", "20", "--simulated", "10")


def test_evaluate_keeps_it_in_the_card_beside_the_other_measures(small, capsys):
    assert main(["evaluate", str(small), *WORDS, "--save"]) == 0
    out = capsys.readouterr().out
    kept = checkpoints.read_card(small).metrics
    assert kept["nll"] == 123.0 and kept["ais"]["images"] == 30
    assert "30 test images of digits, 2 chains of 20 temperatures and 20 draws each, seed 0; mean ± s.e." in out
    assert f"what L_20 misses                  {kept['ais']['missed']:.3f} ± {kept['ais']['missed_se']:.3f} nats" in out
    assert main(["evaluate", str(small), *WORDS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"checkpoint": str(small), "dataset": "digits", "ais": kept["ais"]}
    all_measures = ["evaluate", str(small), "--samples", "20", "--images", "30", "--save"]
    assert main(all_measures) == 0  # of the same weights
    assert checkpoints.read_card(small).metrics["ais"] == kept["ais"] and "elbo" in checkpoints.read_card(small).metrics
    assert main([*all_measures, "--half"]) == 0  # of others
    assert "ais" not in checkpoints.read_card(small).metrics


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--ais 1", "--ais must lie between 2 and 1,000,000, not 1"),
        ("--ais 10 --chains 1", "--chains must lie between 2 and 1,000,000, not 1"),
        ("--ais 10 --simulated 1", "--simulated must be 0 or lie between 2 and 1,000,000, not 1"),
        ("--ais 10 --quantiles", "--quantiles and --ais each measure one thing alone"),
        ("--ais 10 --half --save", "--half would round the weights, and --ais keep"),
    ],
)
def test_refusals(words, told, small, capsys):
    before = small.read_bytes()
    assert main(["evaluate", str(small), *words.split()]) == 2
    assert told in capsys.readouterr().err and small.read_bytes() == before


def test_a_card_without_measures_keeps_none_alone(small, capsys):
    model, card = checkpoints.load(small)
    checkpoints.save(small, model, dataclasses.replace(card, metrics={}))
    assert main(["evaluate", str(small), *WORDS, "--save"]) == 2
    assert "--ais adds to the measures in a card, and this one has none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"nll": "88"}, "not an object of numbers"), ({"gap": [1]}, "not an object of numbers"),
        ({"missed": None}, "lacks missed"), ({"images": 0}, "of '0' images"), ({"seed": 1.5}, "of '1.5' seed"),
        ({"chains": True}, "not an object of numbers"), ({"elbo": 1e300}, "not an object of numbers"),
    ],
)  # fmt: skip
def test_a_card_with_other_numbers_is_refused(tmp_path, wrong, told):
    model = Model(ModelConfig.parse("8:4"), seed=0)
    checkpoints.save(tmp_path / "good.safetensors", model, Card(model.config, {}, metrics={"ais": KEPT}))
    with pytest.raises(CheckpointError, match=told):
        checkpoints.save(tmp_path / "m.safetensors", model, Card(model.config, {}, metrics={"ais": KEPT | wrong}))


def test_the_table_takes_what_is_missed_from_the_nll_of_all_images():
    (row,), _ = rows.collect(catalogue(entry("one", measured(88.0, 0.2, ais=KEPT))))
    assert row.metrics["nll_ais"] == pytest.approx(87.4) and row.metrics["kl_posterior_ais"] == pytest.approx(8.6)
    assert row.metrics["nll_ais_se"] == pytest.approx(math.hypot(0.2, 0.03))
    text = tables.markdown([row], ["nll", "nll_ais", "ais_gap"])
    assert text.splitlines()[-1] == "| 88.00 ± 0.20 | 87.40 ± 0.20 | 0.02 ± 0.03 |"
    assert row.record()["nll_ais"] == row.metrics["nll_ais"] and row.record()["ais_gap_se"] == 0.03
    (other,), _ = rows.collect(catalogue(entry("one", measured(88.0, 0.2, ais=KEPT | {"samples": 1000}))))
    assert tables.markdown([other], ["nll_ais"]).endswith("| – |")  # L_5000 and L_1000 miss different amounts


def test_the_documents_say_it_and_the_command_that_repeats_it():
    one = entry("one", measured(88.0, 0.2, threshold=0.01, ais=KEPT), {"steps": 6000})
    text = model_card.text(one.card, "one", "one.safetensors")
    assert "| NLL by AIS | 88.30 ± 0.70 | −log p̂(x) by annealed importance sampling, 4 chains from q of 1,000" in text
    assert "| what L_S misses | 0.60 ± 0.03 |" in text and "100 images sampled from the model |" in text
    command = commands.anneal("checkpoints/one.safetensors", KEPT)
    assert command in readme.details(rows.collect(catalogue(one))[0]).replace(" \\\n    ", " ")
    asked = evaluate.parse(command.split()[4:])
    assert (asked.ais, asked.chains, asked.images, asked.samples) == (1000, 4, 1000, 5000) and asked.save
