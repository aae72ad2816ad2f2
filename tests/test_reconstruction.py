"""Pictures of images that went through a model, and their losses."""

import math

import pytest
import torch

from iwae.analysis.reconstruction import MIN_PROBABILITY, PICTURES, cross_entropy, reconstructions
from iwae.evaluation.metrics import evaluate
from iwae.inference.posterior import posterior, reconstruct
from iwae.model import Model, ModelConfig

ONE = ModelConfig(hidden=((8,),), latent=(5,), shape=(1, 16))
TWO = ModelConfig(hidden=((8,), (6,)), latent=(4, 3), shape=(1, 16))


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 2, (count, 16), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("config", [ONE, TWO], ids=["one layer", "two layers"])
def test_against_the_posterior_of_one_image(config):
    """Other draws of the same averages: within 5 standard errors of 5,000 draws of each pixel (false alarms: 1e-5)."""
    model, x = Model(config, seed=1), images(3)
    found = reconstructions(model, x, samples=5000)
    for number, image in enumerate(x):
        drawn = posterior(model, image, samples=5000, seed=7)
        with torch.no_grad():
            se = model.decode(drawn.h[0]).std(0).max() * math.sqrt(2)
        one, rounding = reconstruct(model, drawn), 1 / 255
        for name, other, draws in (
            ("mean", one.from_mean, math.inf),
            ("average", one.average, 5000),
            ("weighted", one.weighted, drawn.ess),
        ):
            gap = (found.pictures[name][number] / 255 - other).abs().max()
            assert gap < rounding + 5 * se / math.sqrt(draws), name


def test_one_draw_is_the_reconstruction_loss_of_evaluate():
    model, x = Model(ONE, seed=1), images(150)
    for samples in (1, 60):
        found = reconstructions(model, x, samples=samples, seed=2).losses["draw"]
        if samples == 1:
            torch.testing.assert_close(found, evaluate(model, x, samples=1, seed=2).reconstruction)
    assert found.std() < reconstructions(model, x, samples=1, seed=2).losses["draw"].std()


def test_losses_are_those_of_the_pictures():
    model, x = Model(TWO, seed=3), images(120)
    found = reconstructions(model, x, samples=20)
    assert set(found.pictures) == set(found.losses) == set(PICTURES)
    for name in ("mean", "average", "weighted"):
        plain = torch.nn.functional.binary_cross_entropy(found.pictures[name] / 255, x, reduction="none").sum(1)
        assert (plain - found.losses[name]).abs().max() < 16 * 2 / 255 / found.pictures[name].min() * 255
    weight = reconstructions(model, x, samples=1)
    torch.testing.assert_close(weight.losses["average"], weight.losses["weighted"])  # of one draw they are the same


def test_a_cross_entropy_is_finite_for_certain_pixels():
    x = torch.tensor([[0.0, 1.0, 1.0]])
    assert cross_entropy(x, torch.tensor([[0.0, 1.0, 0.5]])).item() == pytest.approx(
        math.log(2) - 2 * math.log1p(-MIN_PROBABILITY), abs=1e-5
    )
    assert cross_entropy(x, torch.tensor([[1.0, 1.0, 0.5]])).item() == pytest.approx(
        -math.log(MIN_PROBABILITY) + math.log(2), rel=1e-2
    )


def test_images_do_not_depend_on_those_beside_them_in_other_blocks():
    model, x = Model(ONE, seed=1), images(250)
    some, all_of_them = (reconstructions(model, part, samples=60) for part in (x[:100], x))
    for name in PICTURES:
        assert some.losses[name].equal(all_of_them.losses[name][:100])
        assert some.pictures[name].equal(all_of_them.pictures[name][:100])


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        reconstructions(Model(ONE), images(2), samples=0)
