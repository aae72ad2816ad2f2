"""Annealed importance sampling against closed forms, an exact grid, and its own path taken backwards."""

import math

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.data import datasets
from iwae.inference import ais
from iwae.inference.exact_posterior import plane
from iwae.inference.posterior import posterior
from iwae.kernels import bernoulli
from iwae.model import Model, ModelConfig
from tests.linear_gaussian import LinearGaussian

TWO_LAYERS = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), shape=(1, 24))
FLAT = ModelConfig(hidden=((12,),), latent=(2,), shape=(1, 24))


@pytest.fixture
def exact():
    """A model whose log p(x) is known, with a q that is shifted and too narrow."""
    model = LinearGaussian()
    with torch.no_grad():
        model.shift += 0.4
        model.log_std -= 0.5
    return model, 1.5 * torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("start", ["encoder", "prior"])
def test_log_p_of_a_linear_gaussian_model(exact, start):
    model, x = exact
    found = ais.anneal(model, x, chains=250, temperatures=200, start=start)
    assert (found.log_p - model.log_p(x)).abs().max() < 0.05
    assert ((found.acceptance > 0.8) & (found.acceptance < 0.99)).all()


def test_the_weights_have_mean_p_whatever_the_number_of_temperatures(exact):
    """E[w] = p(x), exactly: 4,000 chains of six temperatures, within 4 standard errors of the mean weight."""
    model, x = exact
    for start in ("encoder", "prior"):
        w = (ais.anneal(model, x, chains=4000, temperatures=6, start=start).log_w - model.log_p(x)).exp()
        assert ((w.mean(0) - 1).abs() < 4 * w.std(0) / math.sqrt(4000)).all()


def test_the_ends_are_draws_from_the_posterior(exact):
    """Mean and variance of the weighted ends against the Gaussian posterior, within 4 of their standard errors."""
    model, x = exact
    found = ais.anneal(model, x, chains=600, temperatures=60)
    honest = LinearGaussian()  # its q is the posterior
    mean, log_std = honest.encode_first(x)
    z = ((found.h[0] - mean) / log_std.exp()).detach()
    weights, error = found.weights.unsqueeze(-1), 4 / found.ess.sqrt().unsqueeze(-1)
    assert ((weights * z).sum(0).abs() < error).all()
    assert (((weights * z.square()).sum(0) - 1).abs() < math.sqrt(2) * error).all()


def test_draws_follow_the_weights():
    """Weights 1:3 over two ends, in each of two images: 4,000 draws within 4 standard errors."""
    log_w = torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64).log()
    ends = torch.tensor([[[0.0], [10.0]], [[1.0], [11.0]]])  # chains, images, units
    found = ais.Annealed(log_w, (ends,), torch.ones(2), "encoder", 2, 0)
    (drawn,) = found.draws(4000)
    assert drawn.shape == (4000, 2, 1)
    shares = drawn[:, :, 0].mean(0) - torch.tensor([0.0, 10.0])
    assert (shares - torch.tensor([0.75, 0.25])).abs().max() < 4 * math.sqrt(0.75 * 0.25 / 4000)
    assert found.log_p.tolist() == pytest.approx([math.log(2)] * 2) and found.ess.tolist() == pytest.approx([1.6] * 2)


def test_log_p_of_a_plane():
    """Two units and a binary image: Bayes' rule on a grid."""
    model = Model(FLAT, seed=4)
    with torch.no_grad():
        model.pixel_logits.weight *= 2
    x = torch.randint(0, 2, (3, 24), generator=torch.Generator().manual_seed(7)).float()
    found = ais.anneal(model, x, chains=64, temperatures=200)
    for image, log_p, error in zip(x, found.log_p, found.error, strict=True):
        grid = plane(model, posterior(model, image, samples=500))
        assert abs(log_p - grid.log_p) < 4 * error + grid.error < 0.2


@pytest.mark.parametrize(("config", "start"), [(FLAT, "encoder"), (FLAT, "prior"), (TWO_LAYERS, "prior")])
def test_between_two_bounds(config, start):
    """Bidirectional Monte Carlo: images sampled from the model, of which one posterior draw is known exactly. The lower
    bound from one end and the upper bound from the other meet."""
    model = Model(config, seed=4)
    x, h = ais.simulated(model, 20, seed=3)
    lower = ais.anneal(model, x, chains=12, temperatures=200, start=start)
    gap = ais.upper_bound(model, x, h, chains=12, temperatures=200, start=start, seed=1) - lower.log_p
    error = gap.std() / math.sqrt(len(gap))
    assert -4 * error < gap.mean() < 0.05 + 4 * error and error < 0.05


def test_the_error_is_that_of_the_chains(exact):
    """Intervals of 95% hold the true value: in at least 366 of 400, where 380 are expected (1e-3)."""
    model, x = exact
    x = x.repeat(100, 1)
    found = ais.anneal(model, x, chains=16, temperatures=100)
    low, high = found.interval(0.95)
    truth = model.log_p(x)
    assert found.shown.float().mean() > 0.9
    assert ((low <= truth) & (truth <= high)).sum() >= 366


def test_repeatable_whatever_the_threads_and_the_company():
    model = Model(TWO_LAYERS, seed=4)
    x, _ = ais.simulated(model, 130)
    one = ais.anneal(model, x, chains=3, temperatures=5, seed=2)
    assert torch.equal(one.log_w, ais.anneal(model, x, chains=3, temperatures=5, seed=2).log_w)
    assert not torch.equal(one.log_w, ais.anneal(model, x, chains=3, temperatures=5, seed=3).log_w)
    torch.testing.assert_close(one.log_w[:, :100], ais.anneal(model, x[:100], chains=3, temperatures=5, seed=2).log_w)
    assert one.log_w.shape == (3, 130) and [layer.shape for layer in one.h] == [(3, 130, 5), (3, 130, 3)]


def test_progress_and_how_to_cancel():
    model, seen = Model(FLAT, seed=4), []
    x, _ = ais.simulated(model, 2)
    ais.anneal(model, x, chains=2, temperatures=16, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 66) for step in range(1, 67)]

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ais.anneal(model, x, chains=2, temperatures=16, progress=stop)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_gradient_of_h_alone_is_that_of_the_whole():
    """A model whose weights want no gradient takes a shorter way back: the same numbers, in h."""
    model = Model(ModelConfig(hidden=((12, 9),), latent=(3,), shape=(1, 48)), seed=4)
    x, (h,) = ais.simulated(model, 4)
    found = []
    for wanted in (True, False):
        model.requires_grad_(wanted)
        at = h.expand(5, 4, 3).clone().requires_grad_()
        found += torch.autograd.grad(model.log_likelihood(x, at).sum(), at)
    plain = h.expand(5, 4, 3).clone().requires_grad_()
    found += torch.autograd.grad(bernoulli.log_likelihood(x, model.logits(plain)).sum(), plain)
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[1], found[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"chains": 1}, "at least 2 chains"),
        ({"temperatures": 1}, "not 32 chains and 1"),
        ({"start": "nowhere"}, "'encoder' or 'prior', not 'nowhere'"),
    ],
)
def test_refusals(given, says):
    with pytest.raises(ValueError, match=says):
        ais.anneal(Model(FLAT, seed=4), torch.zeros(1, 24), **given)


@pytest.mark.slow
@pytest.mark.skipif(not datasets.available("mnist-fixed"), reason="mnist-fixed is not on this machine")
@pytest.mark.parametrize("name", ["1layer-vae-k1", "1layer-iwae-k50", "2layer-iwae-k50"])
def test_intervals_of_shipped_models_hold_at_their_rate(name):
    """Of 40 test images against ten times the temperatures, whose own error counts: at least 34 of 38 expected at 95%
    (fewer: 2%), at least 26 of 32 at 80% (1%); an interval for at least 36; and the bounds from both ends of the path
    meet for images sampled from the model."""
    model, _ = checkpoints.load(catalog.SHIPPED / f"mnist-fixed-{name}.safetensors")
    x = datasets.load("mnist-fixed", download=False, only_test=True).binary("test")[::250]
    found = ais.anneal(model, x, seed=1)
    longer = ais.anneal(model, x, chains=12, temperatures=10_000, seed=2)
    assert found.shown.sum() >= 36
    for rate, fewest in ((0.95, 34), (0.8, 26)):
        half = found.interval(rate)[1] - found.log_p
        allowed = half * torch.hypot(found.error, longer.error) / found.error
        assert ((found.log_p - longer.log_p).abs() <= allowed).sum() >= fewest
    x, h = ais.simulated(model, 40, seed=3)
    gap = ais.upper_bound(model, x, h, chains=16, seed=5) - ais.anneal(model, x, chains=16, seed=4).log_p
    assert -0.15 < gap.mean() < 0.15
