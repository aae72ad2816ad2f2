"""Evaluation: closed forms, identities between the measures, and independence of how the stream is cut."""

import itertools
import math

import pytest
import torch

from iwae.bounds import Bound
from iwae.evaluation import sampling
from iwae.evaluation.activity import active_units
from iwae.evaluation.metrics import evaluate, mean_bound
from iwae.evaluation.stats import RunningBound, plus_minus
from iwae.model import Model, ModelConfig

ONE = ModelConfig(hidden=((12,),), latent=(5,), shape=(1, 32))
TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), shape=(1, 24))


def lively(config: ModelConfig, scale: float = 0.5) -> Model:
    """A model whose units all say something: random biases, and weights a little larger than at the start."""
    model = Model(config, seed=4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * scale * 0.3)
    return model


def images(n: int, pixels: int = 24) -> torch.Tensor:
    return torch.randint(0, 2, (n, pixels), generator=torch.Generator().manual_seed(7)).double()


def test_measures_agree_with_each_other_and_with_the_draws():
    """ELBO = −reconstruction of the same draws − D_KL(q‖p(h)); NLL = −L_k; D_KL(q‖p(h|x)) = L_k − ELBO; ESS."""
    model, x = lively(TWO), images(7)
    metrics = evaluate(model, x, samples=120, seed=3, prune=False)
    generator = torch.Generator().manual_seed(3 * 1_000_003)
    with torch.no_grad():
        parts = [model.sample(x, noise=model.noise(50, 7, generator)) for _ in range(3)]
    log_w = torch.cat([part.log_w for part in parts])[:120]
    log_px = torch.cat([part.log_px for part in parts])[:120]
    torch.testing.assert_close(metrics.nll, -Bound("iwae")(log_w), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(metrics.elbo, log_w.mean(0), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(metrics.elbo, log_px.mean(0) - metrics.kl_prior, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(metrics.kl_posterior, -metrics.nll - metrics.elbo, rtol=1e-5, atol=1e-4)
    ess = 1 / log_w.softmax(0).square().sum(0)
    torch.testing.assert_close(metrics.ess.double(), ess, rtol=1e-4, atol=0)
    assert (metrics.kl_posterior >= 0).all()


def test_fewer_samples_are_a_prefix_and_blocks_do_not_depend_on_the_rest():
    model, x = lively(TWO), images(150)
    long = evaluate(model, x, samples=120, ks=(7, 120), prune=False)
    torch.testing.assert_close(long.bounds[120], -long.nll, rtol=1e-6, atol=1e-5)
    short = evaluate(model, x[:100], samples=120, prune=False)
    torch.testing.assert_close(short.nll, long.nll[:100])
    alone = evaluate(model, x, samples=60, prune=False)
    groups = mean_bound(model, x, Bound("iwae"), 60)
    torch.testing.assert_close(-alone.nll, groups, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 10, 64])
@pytest.mark.parametrize("cuts", [[64], [1] * 64, [5, 20, 2, 37], [10, 50, 4]])
def test_running_bound_does_not_depend_on_the_cuts(k, cuts):
    log_w = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 - 90
    groups = log_w[: 64 // k * k].view(-1, k, 4)
    expected = (groups.logsumexp(1) - math.log(k)).mean(0)
    running = RunningBound(k)
    for part in log_w.split(cuts):
        running.add(part)
    torch.testing.assert_close(running.mean(), expected)


def test_bounds_rise_with_k():
    """L_k of a mean over 3,000 images rises with k; each step by more than 4 s.e. of the paired difference."""
    bounds = evaluate(lively(TWO), images(3000), samples=50, ks=(1, 2, 5, 10), prune=False).bounds
    for lower, upper in itertools.pairwise(bounds.values()):
        gap = upper - lower
        assert gap.mean() > 4 * gap.std() / math.sqrt(len(gap))


def test_active_units_of_the_first_layer_are_exact():
    model, x = lively(TWO), images(400)
    activity = active_units(model, x)[0]
    with torch.no_grad():
        covariance = torch.cov(model.encoder[0](x)[0].T)
    torch.testing.assert_close(activity.covariance, covariance)
    torch.testing.assert_close(activity.eigenvalues.sum(), activity.variance.sum())


def test_active_units_above_are_corrected_for_the_noise_of_the_draws():
    """With 4 draws, a plain variance of means holds E[Var]/4 too much; ours agrees with 4,000 draws.

    600 images; the tolerance is 5 s.e. of the difference over 40 seeds of the 4-draw estimate.
    """
    model, x = lively(TWO, scale=1.0), images(600)
    many = active_units(model, x, draws=4000, seed=1)[1].variance
    few = torch.stack([active_units(model, x, draws=4, seed=seed)[1].variance for seed in range(40)])
    error = few.std(0) / math.sqrt(40)
    assert ((few.mean(0) - many).abs() < 5 * error).all()
    with torch.no_grad():
        noise = model.noise(4, 600, torch.Generator().manual_seed(0))
        h1, _ = model.sample_posterior(x, noise)
        plain = model.encoder[1](h1[0])[0].mean(0).var(0)
    assert ((plain - many) > 5 * error).any()


def test_a_silent_unit_is_inactive_and_pruning_it_costs_nothing():
    """A unit that ignores the image and is ignored by the decoder: inactive, and the NLL without it is the same.

    Same draws; the unit's own log-weight is exactly zero, as q(h_u|x) is its prior.
    """
    model, x = lively(ModelConfig(((12,),), (5,), (1, 24)), scale=2.0), images(150)
    with torch.no_grad():
        for head in (model.encoder[0].mean, model.encoder[0].log_std):
            head.weight[2], head.bias[2] = 0.0, 0.0
        model.pixel_hidden[0].weight[:, 2] = 0.0
    metrics = evaluate(model, x, samples=100)
    assert metrics.activity[0].active.tolist() == [True, True, False, True, True]
    torch.testing.assert_close(metrics.pruned_nll, metrics.nll, rtol=1e-6, atol=1e-5)


def test_pruning_counts_only_what_is_left():
    """With every unit inactive the pruned model is p(x|h = 0), whose NLL needs no draws."""
    model, x = lively(ModelConfig(((12,),), (5,), (1, 24))), images(20)
    metrics = evaluate(model, x, samples=10, threshold=1e9)
    with torch.no_grad():
        exact = -model.log_likelihood(x, torch.zeros(1, 20, 5).double())[0]
    torch.testing.assert_close(metrics.pruned_nll, exact, rtol=1e-6, atol=1e-5)


def test_reconstruction_goes_through_the_top_layer():
    """For L = 2 its mean is E −log p(x|h₁), h₁ ~ p(h₁|h₂): 400 seeds against 20,000 plain draws, within 5 s.e."""
    model, x = lively(TWO), images(6)
    ours = torch.stack([evaluate(model, x, samples=2, seed=s, prune=False).reconstruction for s in range(400)])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        h, _ = model.sample_posterior(x, model.noise(20_000, 6, generator))
        plain = -model.log_likelihood(x, model.ancestral_sample(h[1], generator))
        direct = -model.log_likelihood(x, h[0])
    error = (ours.var(0) / len(ours) + plain.var(0) / len(plain)).sqrt()
    assert ((ours.mean(0) - plain.mean(0)).abs() < 5 * error).all()
    assert ((direct.mean(0) - plain.mean(0)).abs() > 5 * error).any()  # the shorter way is another number


def test_summary_has_every_field_with_its_error():
    summary = evaluate(lively(TWO), images(30), samples=20, seed=9, ks=(5,)).summary()
    for name in ("nll", "elbo", "reconstruction", "kl_prior", "kl_posterior", "ess", "pruned_nll"):
        assert math.isfinite(summary[name]) and summary[f"{name}_se"] > 0
    assert summary["images"] == 30 and summary["samples"] == 20 and summary["seed"] == 9
    assert len(summary["active_units"]) == len(summary["pca_active_units"]) == 2
    values = evaluate(lively(TWO), images(30), samples=20, seed=9).nll
    assert summary["nll"] == pytest.approx(values.mean().item())
    assert summary["nll_se"] == pytest.approx(values.std().item() / math.sqrt(30))


def test_memory_does_not_grow_with_samples(monkeypatch):
    """No tensor made on the way is larger for 1,000 samples than for 100: the largest draw is one block."""
    seen = []
    original = Model.sample
    monkeypatch.setattr(
        Model, "sample", lambda self, x, *a, **k: seen.append(k["noise"][0].shape) or original(self, x, *a, **k)
    )
    evaluate(lively(TWO), images(10), samples=1000, prune=False)
    assert {tuple(shape) for shape in seen} == {(sampling.DRAWS, 10, 5)}
    assert len(seen) == 1000 // sampling.DRAWS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"samples": 0}, "at least 1, not 0"),
        ({"samples": 5, "ks": (6,)}, "between 1 and the 5 samples, not 6"),
    ],
)
def test_refusals(arguments, says):
    with pytest.raises(ValueError, match=says):
        evaluate(lively(TWO), images(5), **arguments)


def test_progress_counts_images():
    seen = []
    evaluate(lively(TWO), images(250), samples=2, prune=False, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(100, 250), (200, 250), (250, 250)]


@pytest.mark.parametrize(
    "value, se, digits, sign, text",
    [
        (-87.204, 0.2351, 2, False, "−87.20 ± 0.24"),
        (-87.204, None, 2, False, "−87.20"),
        (0.123, 0.0414, 3, True, "+0.123 ± 0.041"),
        (0.9114, 0.00312, None, False, "0.9114 ± 0.0031"),
        (1234.5, 123.4, None, True, "+1234 ± 123"),
        (-0.5, None, None, False, "−0.500"),
    ],
)
def test_numbers_are_written_with_their_errors(value, se, digits, sign, text):
    assert plus_minus(value, se, digits, sign) == text
