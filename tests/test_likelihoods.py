"""Likelihoods against torch's own and quadrature, and models of grey images."""

import math

import numpy as np
import pytest
import torch
from torch import distributions

from iwae import checkpoints
from iwae.__main__ import main
from iwae.analysis.reconstruction import reconstructions
from iwae.bounds import Bound
from iwae.checkpoints import Card
from iwae.evaluation.metrics import evaluate
from iwae.evaluation.sampling import map_draws
from iwae.export import model_card
from iwae.gradients import Estimator
from iwae.likelihoods import find
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

BERNOULLI = find("bernoulli")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


GREY = ("continuous-bernoulli", "gaussian", "gaussian-0.2", "discretized-logistic")
EXTREME = torch.tensor([-80.0, -9.0, -0.5, -0.31, -0.29, -1e-3, 0.0, 1e-6, 0.2, 0.3, 4.0, 80.0], dtype=torch.float64)


def outputs_of(name: str, pixels: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, pixels * find(name).per_pixel, generator=generator(), dtype=torch.float64)


def test_continuous_bernoulli():
    """Against torch's, where that is accurate, and against quadrature where l is near 0; its gradient by autograd."""
    likelihood = find("continuous-bernoulli")
    x = torch.rand(len(EXTREME), generator=generator(), dtype=torch.float64)
    exact = distributions.ContinuousBernoulli(logits=EXTREME, lims=(0.499999, 0.500001))
    found = likelihood.pixel_log_prob(x, EXTREME)
    torch.testing.assert_close(found[3:-1], exact.log_prob(x)[3:-1], rtol=0, atol=1e-6)
    torch.testing.assert_close(likelihood.mean(EXTREME)[3:-1], exact.mean[3:-1], rtol=0, atol=1e-6)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    grid, weights = (nodes + 1) / 2, weights / 2
    density = likelihood.pixel_log_prob(grid[:, None], EXTREME).exp()
    torch.testing.assert_close(weights @ density, torch.ones_like(EXTREME), rtol=0, atol=1e-12)
    torch.testing.assert_close((weights * grid) @ density, likelihood.mean(EXTREME), rtol=0, atol=1e-12)
    logits = EXTREME.clone().requires_grad_()
    likelihood.log_prob(x, logits).backward()
    torch.testing.assert_close(logits.grad, x - likelihood.mean(EXTREME), rtol=0, atol=1e-12)


def test_gaussians():
    """Against torch's, with σ held above 1/256."""
    outputs, x = outputs_of("gaussian", 7, 4), torch.randn(4, 7, generator=generator(1), dtype=torch.float64)
    mean, raw = outputs.chunk(2, -1)
    std = (torch.nn.functional.softplus(raw - math.log(1 / 256)) + math.log(1 / 256)).exp()
    for name, given, scale in (("gaussian", outputs, std), ("gaussian-0.2", mean, 0.2)):
        exact = distributions.Normal(mean, scale).log_prob(x).sum(-1)
        torch.testing.assert_close(find(name).log_prob(x, given), exact)
    narrow = torch.tensor([0.0, -1e4], dtype=torch.float64)
    assert find("gaussian").mean_and_log_std(narrow)[1].item() == pytest.approx(math.log(1 / 256))


def test_discretized_logistic():
    """A level's probability is the mass of the logistic distribution nearest to it; all 256 sum to 1."""
    likelihood, levels = find("discretized-logistic"), torch.arange(256, dtype=torch.float64)[:, None] / 255
    outputs = torch.tensor([[0.4, 1.3, -0.2, 0.5, -2.0, -9.0]], dtype=torch.float64)  # three means, then log scales
    log_p = likelihood.pixel_log_prob(levels.expand(256, 3), outputs)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(3, dtype=torch.float64))
    mean, rate = outputs[0, :3], (-(torch.nn.functional.softplus(outputs[0, 3:] + 7) - 7)).exp()
    edges = torch.sigmoid(((torch.arange(255, dtype=torch.float64)[:, None] + 0.5) / 255 - mean) * rate)
    mass = torch.cat([edges[:1], edges.diff(dim=0), 1 - edges[-1:]])
    torch.testing.assert_close(log_p.exp(), mass, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((log_p.exp() * levels).sum(0), likelihood.mean(outputs)[0], rtol=0, atol=0.1 / 255)
    far = torch.tensor([[900.0, -30.0]], requires_grad=True)  # no level is near: finite, with a gradient, all the same
    loss = likelihood.log_prob(torch.tensor([[0.5]]), far)
    loss.sum().backward()
    assert loss.isfinite().all() and far.grad.isfinite().all()
    assert likelihood.bits_per_pixel(2 * 784 * math.log(2), 784) == 2
    assert find("gaussian").bits_per_pixel(1.0, 784) is None


@pytest.mark.parametrize("name", GREY)
def test_draws_have_the_moments_of_the_density(name):
    """40,000 draws of 6 pixels, seed 0: E[x] and E[log p(x)] within 5 s.e. (12 comparisons, false alarm 7e-6)."""
    likelihood, outputs = find(name), outputs_of(name, 6)
    x = likelihood.sample(outputs.expand(40_000, -1), generator())
    assert torch.equal(x, likelihood.sample(outputs.expand(40_000, -1), generator())) and x.dtype == outputs.dtype
    assert likelihood.check_images(x[:50], (2, 3), outputs).shape == (50, 6)
    se = x.std(0) / 200
    assert ((x.mean(0) - likelihood.mean(outputs)).abs() < 5 * se).all()
    log_p = likelihood.pixel_log_prob(x, outputs)
    grid = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    if likelihood.bits:
        grid = torch.arange(256, dtype=torch.float64) / 255
    elif name == "continuous-bernoulli":
        grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    density = likelihood.pixel_log_prob(grid[:, None].expand(-1, 6), outputs)
    step = 1 if likelihood.bits else (grid[1] - grid[0]).item()
    expected = (density.exp() * density).nan_to_num(0).sum(0) * step  # minus the entropy
    assert ((log_p.mean(0) - expected).abs() < 5 * log_p.std(0) / 200 + 1e-4).all()


@pytest.mark.parametrize("name", GREY)
def test_a_model_of_grey_images(name, tmp_path):
    """Parts of the pixels, gradient, evaluation, reconstruction and checkpoint follow from the likelihood alone."""
    config = ModelConfig(((16,), (8,)), (5, 3), shape=(1, 9), likelihood=name)
    assert ModelConfig.parse(f"1layer@{name}").likelihood == name == ModelConfig.parse(str(config)).likelihood
    assert str(ModelConfig.parse(f"1layer@{name}")) == f"1layer@{name}"
    assert TrainConfig(model=f"1layer@{name}").model_config == ModelConfig(likelihood=name)
    pixel_mean = torch.linspace(0.1, 0.9, 9)
    model = Model(config, pixel_mean=pixel_mean, seed=1)
    if name != "discretized-logistic":  # whose mean is only near that of its logistic distribution
        torch.testing.assert_close(model.likelihood.mean(model.pixel_logits.bias), pixel_mean, rtol=0, atol=1e-5)
    x = model.likelihood.check_images(
        (torch.rand(40, 9, generator=generator()) * 255).round() / 255, (1, 9), pixel_mean
    )
    h1 = torch.randn(7, 40, 5, generator=generator(1))
    each = model.likelihood.pixel_log_prob(x, model.logits(h1))
    torch.testing.assert_close(model.log_likelihood(x, h1), each.sum(-1))
    visible = torch.arange(9) % 3 == 0
    torch.testing.assert_close(model.log_likelihood(x, h1, visible), each[..., visible].sum(-1))

    loss, bound, sample = Estimator(Bound("iwae"), 6)(model, x, generator())
    loss.backward()
    assert model.pixel_logits.weight.grad.isfinite().all() and model.pixel_logits.weight.grad[-1].any()
    torch.testing.assert_close(bound, sample.log_w.detach().logsumexp(0) - math.log(6))

    found = evaluate(model, x, samples=50, seed=2).summary()
    checkpoints.save(tmp_path / "grey.safetensors", model, Card(config, {}))
    again, card = checkpoints.load(tmp_path / "grey.safetensors")
    assert card.model == config and evaluate(again, x, samples=50, seed=2).summary() == found

    one = reconstructions(model, x, samples=1, seed=3)  # the average of a single draw is that draw
    drawn = map_draws(lambda block, draws: next(draws).h[0], model, x, 1, seed=3)[0]
    torch.testing.assert_close(one.losses["average"], -model.log_likelihood(x, drawn)[0].detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.losses["weighted"], one.losses["average"])


def test_log_p_of_linear_gaussian_data():
    """x = W h + b + 0.5 ε with a linear decoder: log p(x) = log N(x; b, W Wᵀ + 0.25 I), within 3 s.e. for the mean of
    200 images (false alarm 0.3%), 2,000 draws of a q that is the exact posterior but for its width."""
    torch.manual_seed(0)
    model = Model(ModelConfig(((4,),), (3,), shape=(1, 8), likelihood="gaussian-0.5"), seed=0).double()
    weight, bias = torch.randn(8, 3).double(), torch.randn(8).double()
    model.pixel_hidden = torch.nn.Identity()
    model.pixel_logits = torch.nn.Linear(3, 8).double()
    cov = torch.linalg.inv(torch.eye(3).double() + weight.T @ weight / 0.25)  # of p(h|x), with mean cov·Wᵀ(x − b)/0.25
    model.encoder[0].hidden = torch.nn.Identity()
    model.encoder[0].mean = torch.nn.Linear(8, 3).double()
    model.encoder[0].log_std = torch.nn.Linear(8, 3).double()
    with torch.no_grad():
        model.pixel_logits.weight.copy_(weight), model.pixel_logits.bias.copy_(bias)
        gain = cov @ weight.T / 0.25
        model.encoder[0].mean.weight.copy_(gain), model.encoder[0].mean.bias.copy_(-gain @ bias)
        model.encoder[0].log_std.weight.zero_(), model.encoder[0].log_std.bias.copy_(0.5 * (1.5 * cov.diagonal()).log())
    x = model.likelihood.sample(model.logits(torch.randn(200, 3).double())).detach()
    exact = distributions.MultivariateNormal(bias, weight @ weight.T + 0.25 * torch.eye(8).double()).log_prob(x)
    found = -evaluate(model, x, samples=2000, seed=1).nll
    assert (found - exact).std() > 1e-6  # q is not the posterior itself
    assert abs((found - exact).mean()) < 3 * (found - exact).std() / math.sqrt(200)


def test_grey_images_are_trained_evaluated_and_described(tmp_path, capsys):
    """A short run on grey levels: the loop takes them, `evaluate` adds bits per pixel, and the model card says so."""
    training = Training(TrainConfig(dataset="digits", model="8:2@discretized-logistic", k=2, epochs=1))
    records = list(training.run())
    assert records[-1].valid_bound > records[-1].bound - 500 and training.valid.max() <= 1
    levels = training.valid * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4) and len(levels.unique()) > 50  # grey, not binarized
    file = tmp_path / "grey.safetensors"
    checkpoints.save(file, training.kept_model(), training.card())
    assert main(["evaluate", str(file), "--samples", "20", "--images", "50", "--save"]) == 0
    said = capsys.readouterr().out
    nll = checkpoints.read_card(file).metrics["nll"]
    assert f"{nll / (784 * math.log(2)):.4f} bits per pixel" in said
    card = model_card.text(checkpoints.read_card(file), "grey", file.name)
    assert "Pixels are grey levels" in card and "NLL in bits per pixel" in card and "grey levels in [0, 1]" in card


def test_zeros_and_ones_need_the_bernoulli():
    with pytest.raises(ValueError, match="mnist-fixed has pixels of zeros and ones"):
        TrainConfig(dataset="mnist-fixed", model="1layer@gaussian")


@pytest.mark.parametrize(
    "name, x, message",
    [
        ("continuous-bernoulli", torch.tensor([[0.2, 1.01]]), "grey levels from 0 to 1, but 1 of the 2 .* is 1.01"),
        ("continuous-bernoulli", torch.tensor([[7, 255]], dtype=torch.uint8), "Divide levels from 0 to 255 by 255"),
        ("continuous-bernoulli", torch.tensor([[0.2, math.nan]]), "is nan"),
        ("discretized-logistic", torch.tensor([[0.2, 0.5]]), "the 256 grey levels 0, 1/255, …, 1, but 1 .* is 0.5"),
        ("gaussian", torch.tensor([[0.2, math.inf]]), "finite numbers"),
        ("gaussian-0.1", torch.tensor([[3, 255]]), "whole numbers in an image can only be 0 and 1"),
    ],
)
def test_what_an_image_may_be(name, x, message):
    with pytest.raises(ValueError, match=message):
        Model(ModelConfig(((4,),), (2,), shape=(1, 2), likelihood=name)).check_images(x)


@pytest.mark.parametrize("name", ["poisson", "", None, ["bernoulli"], "gaussian-0", "gaussian--1", "gaussian-11"])
def test_an_unknown_likelihood_is_refused(name):
    with pytest.raises(ValueError, match=r"unknown likelihood .*; there are bernoulli"):
        ModelConfig(likelihood=name)
