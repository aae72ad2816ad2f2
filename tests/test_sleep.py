"""The sleep phase: the model's own images are those of p(x, h), and an encoder that sees them comes to p(h|x)."""

import math
from dataclasses import asdict

import pytest
import torch

from iwae import checkpoints
from iwae.__main__ import main
from iwae.checkpoints import Card
from iwae.cli.card import card_text
from iwae.model import Model, ModelConfig
from iwae.results import rows as results
from iwae.training import wake_sleep
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from iwae.training.wake_sleep import Refit
from tests.cards import catalogue, entry, measured

TWO = ModelConfig(((20,), (10,)), (6, 3), shape=(1, 12))
ONE = ModelConfig(((20,),), (3,), shape=(1, 12))
COUNT = 20_000
WITHIN = 5  # standard errors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_dreams_are_drawn_layer_by_layer():
    """The top layer is standard normal, every layer below is so around its mean, and pixels are on as often as said."""
    model = Model(TWO, seed=1)
    with torch.no_grad():
        model.decoder[0].log_std.bias.fill_(-1.0)
    x, (h1, h2) = wake_sleep.dream(model, COUNT, seeded())
    assert x.shape == (COUNT, 12) and h1.shape == (COUNT, 6) and h2.shape == (COUNT, 3)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    with torch.no_grad():
        mean, log_std = model.decoder[0](h2)
        for z in (h2, (h1 - mean) / log_std.exp()):
            assert z.mean(0).abs().max() < WITHIN / math.sqrt(COUNT)
            assert (z.square().mean(0) - 1).abs().max() < WITHIN * math.sqrt(2 / COUNT)
        pixels = model.decode(h1)
        error = (pixels * (1 - pixels)).sum(0).sqrt() / COUNT
        assert ((x - pixels).mean(0).abs() < WITHIN * error).all()


def test_the_encoder_comes_to_a_known_posterior():
    """Where no pixel depends on h the posterior is the prior: all log-weights become log p(x), which is known."""
    model = Model(ONE, pixel_mean=torch.linspace(0.1, 0.9, 12), seed=1)
    with torch.no_grad():
        model.pixel_logits.weight.zero_()
        model.encoder[0].mean.bias.fill_(1.0)
    x, _ = wake_sleep.dream(model, 200, seeded(5))
    exact = torch.distributions.Bernoulli(logits=model.pixel_logits.bias).log_prob(x).sum(-1)

    def error(model: Model) -> float:
        with torch.no_grad():
            return (model.sample(x, 50, generator=seeded(6)).log_w - exact).square().mean().sqrt().item()

    refitted = Refit(images=500_000, batch_size=500, learning_rate=1e-2)(model)
    assert error(model) > 1
    assert error(refitted) < 0.05


def test_only_the_encoder_of_a_copy_changes_and_the_seed_decides_how():
    model = Model(TWO, seed=1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = {"images": 250, "batch_size": 100, "seed": 3}
    seen = []
    refitted, again, other = (
        Refit(**settings)(model, lambda done, total: seen.append((done, total))),
        Refit(**settings)(model),
        Refit(**settings | {"seed": 4})(model),
    )
    assert seen == [(100, 250), (200, 250), (250, 250)]
    for name, weight in before.items():
        assert torch.equal(model.state_dict()[name], weight)
        assert torch.equal(refitted.state_dict()[name], again.state_dict()[name])
        assert torch.equal(refitted.state_dict()[name], weight) != name.startswith("encoder")
    assert not torch.equal(refitted.encoder[0].mean.weight, other.encoder[0].mean.weight)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("images", 1.5), ("batch_size", -1), ("learning_rate", 0.0), ("learning_rate", math.nan)],
)
def test_settings_that_cannot_be_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')} must .*not {value}"):
        Refit(**{name: value})


def test_an_encoder_that_is_no_longer_finite_is_refused():
    with pytest.raises(ValueError, match="learning rate below 1000 may help"):
        Refit(images=2000, learning_rate=1000.0)(Model(TWO, seed=1))


def test_the_command_writes_model_and_card(tmp_path, capsys):
    """The card says so in every place where it says how the model was trained."""
    config = TrainConfig("digits", model="20:3", epochs=1, seed=2)
    model = Model(ModelConfig.parse(config.model), seed=2)
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    progress = {"epochs": 1.0, "steps": 13, "seconds": 6.0, "device": "cpu", "valid_bound": -9.0, "weights": "float16"}
    checkpoints.save(source, model, Card(model.config, asdict(config), progress, measured()))
    words = ["--images", "300", "--batch-size", "100", "--seed", "7"]
    assert main(["refit", str(source), "--out", str(out), *words]) == 0
    told = capsys.readouterr().out
    assert "300 generated images" in told
    assert "NLL of 200 validation images, 1,000 draws each" in told and "(paired)" in told
    (refitted, card), (loaded, _) = checkpoints.load(out), checkpoints.load(source)
    expected = Refit(images=300, batch_size=100, seed=7)(loaded).state_dict()
    for name, weight in refitted.state_dict().items():
        torch.testing.assert_close(weight, expected[name])
    assert card.metrics == {} and card.weights == "float32" and "valid_bound" not in card.progress
    assert card.progress["seconds"] > 6 and card.training == asdict(config)
    text = card_text(out)
    assert "on 300 images generated by the model" in text
    assert "python -m iwae refit b.safetensors --images 300 --batch-size 100 --seed 7 --out b.safetensors" in text


def test_a_run_that_goes_on_remembers_it(tmp_path):
    """Its card has the command between those of the two trainings."""
    model, start, out = Model(ModelConfig.parse("20:3"), seed=2), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    card = Card(model.config, asdict(TrainConfig("digits", model="20:3", epochs=1)), {"epochs": 1.0, "seconds": 6.0})
    checkpoints.save(start, model, checkpoints.refitted(card, asdict(Refit(images=500)), 2.0))
    training = Training(TrainConfig("digits", model="20:3", k=2, epochs=1, start=str(start)))
    checkpoints.save(out, training.kept_model(), training.card())
    lines = [line for line in card_text(out).splitlines() if line.startswith("python -m iwae")]
    assert [line.split()[3] for line in lines] == ["train", "refit", "train"]
    assert f"refit {start} --images 500 --out {start}" in lines[1]


@pytest.mark.parametrize("refits", [[{"images": "all"}], [{"learning_rate": "1"}], [{"seed": None}], [{"pictures": 3}]])
def test_a_card_that_tells_of_something_else_is_refused(refits, tmp_path):
    path, config = tmp_path / "a.safetensors", TrainConfig("digits", model="20:3", epochs=1)
    model = Model(ModelConfig.parse(config.model), seed=2)
    checkpoints.save(path, model, Card(model.config, asdict(config), {"refits": refits}))
    with pytest.raises(ValueError, match=r"must|other settings than images, batch_size, learning_rate, seed"):
        card_text(path)


def test_the_table_names_it():
    plain, refitted = (
        entry(name, progress={"refits": refits}, objective="iwae", k=50, input_dropout=0.1)
        for name, refits in (("a", []), ("b", [asdict(Refit(images=2000, seed=1))]))
    )
    rows, refused = results.collect(catalogue(plain, refitted))
    told = {row.name: (row.regularisation, row.command) for row in rows}
    assert not refused
    assert told["a"][0] == "input dropout 0.1"
    assert told["b"][0] == "input dropout 0.1, encoder refitted on 2,000 own images"
    place = "checkpoints/b.safetensors"
    assert told["b"][1].endswith(f"--out {place} && python -m iwae refit {place} --images 2000 --seed 1 --out {place}")
