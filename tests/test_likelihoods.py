"""Likelihoods: the Bernoulli against torch's own, and another one, which needs nothing but its row."""

import math

import pytest
import torch
from torch import distributions

from iwae import checkpoints
from iwae.bounds import Bound
from iwae.checkpoints import Card
from iwae.evaluation.metrics import evaluate
from iwae.gradients import Estimator
from iwae.likelihoods import LIKELIHOODS, Likelihood
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig

BERNOULLI = LIKELIHOODS["bernoulli"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Gaussian(Likelihood):
    """Grey levels: means for all pixels, then their log standard deviations."""

    title = "means and log standard deviations"
    per_pixel = 2

    def check_images(self, x, pixels, like, count=None):
        return x.reshape(-1, pixels).to(like)

    def initial_bias(self, pixel_mean):
        return torch.cat([pixel_mean, torch.full_like(pixel_mean, -1.0)])

    def log_prob(self, x, outputs):
        mean, log_std = outputs.chunk(2, -1)
        return distributions.Normal(mean, log_std.exp()).log_prob(x).sum(-1)

    def mean(self, outputs):
        return outputs.chunk(2, -1)[0]

    def sample(self, outputs, generator=None):
        mean, log_std = outputs.chunk(2, -1)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator)


def test_bernoulli():
    """Against torch.distributions; 20,000 draws of 30 pixels, seed 0, each within 5 s.e. (false alarm 2e-5)."""
    logits = torch.randn(2, 4, 30, generator=generator(), dtype=torch.float64) * 3
    x = (torch.rand(4, 30, generator=generator(1)) < 0.5).double()
    exact = distributions.Bernoulli(logits=logits)
    torch.testing.assert_close(BERNOULLI.log_prob(x, logits), exact.log_prob(x).sum(-1))
    torch.testing.assert_close(BERNOULLI.mean(logits), exact.mean)
    drawn = BERNOULLI.sample(logits[0, 0].expand(20_000, 30), generator())
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and drawn.dtype == logits.dtype
    se = (exact.variance[0, 0] / 20_000).sqrt()
    assert ((drawn.mean(0) - exact.mean[0, 0]).abs() < 5 * se).all()
    assert torch.equal(drawn, BERNOULLI.sample(logits[0, 0].expand(20_000, 30), generator()))
    mean = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(BERNOULLI.initial_bias(mean).sigmoid(), torch.tensor([0.001, 0.3, 0.999]))


def test_another_likelihood_is_a_row(monkeypatch, tmp_path):
    """Grey images: density, parts of the pixels, gradient, evaluation and checkpoint follow from the class alone."""
    monkeypatch.setitem(LIKELIHOODS, "gaussian", Gaussian())
    config = ModelConfig(((16,), (8,)), (5, 3), pixels=9, likelihood="gaussian")
    assert ModelConfig.parse("1layer@gaussian").likelihood == "gaussian" == ModelConfig.parse(str(config)).likelihood
    assert str(ModelConfig.parse("1layer@gaussian")) == "1layer@gaussian"
    assert TrainConfig(model="1layer@gaussian").model_config == ModelConfig(likelihood="gaussian")
    pixel_mean = torch.linspace(0, 1, 9)
    model = Model(config, pixel_mean=pixel_mean, seed=1)
    assert model.pixel_logits.bias.tolist() == pytest.approx([*pixel_mean.tolist(), *[-1.0] * 9])
    x, h1 = torch.rand(40, 9, generator=generator()), torch.randn(7, 40, 5, generator=generator(1))
    mean, log_std = model.logits(h1).chunk(2, -1)
    each = distributions.Normal(mean, log_std.exp()).log_prob(x)
    torch.testing.assert_close(model.log_likelihood(x, h1), each.sum(-1))
    visible = torch.arange(9) % 3 == 0
    torch.testing.assert_close(model.log_likelihood(x, h1, visible), each[..., visible].sum(-1))
    torch.testing.assert_close(model.decode(h1), mean)

    loss, bound, sample = Estimator(Bound("iwae"), 6)(model, x, generator())
    loss.backward()
    assert model.pixel_logits.weight.grad.isfinite().all() and model.pixel_logits.weight.grad[9:].any()
    torch.testing.assert_close(bound, sample.log_w.detach().logsumexp(0) - math.log(6))

    found = evaluate(model, x, samples=50, seed=2).summary()
    checkpoints.save(tmp_path / "grey.safetensors", model, Card(config, {}))
    again, card = checkpoints.load(tmp_path / "grey.safetensors")
    assert card.model == config and evaluate(again, x, samples=50, seed=2).summary() == found


@pytest.mark.parametrize("name", ["poisson", "", None, ["bernoulli"]])
def test_an_unknown_likelihood_is_refused(name):
    with pytest.raises(ValueError, match=r"unknown likelihood .*; there are bernoulli"):
        ModelConfig(likelihood=name)
