"""Single units: their KLs add up, their counts have bands, and leaving them out is exact."""

import math

import pytest
import torch

from iwae.analysis import units
from iwae.evaluation.activity import active_units, activity_of, unit_means
from iwae.evaluation.metrics import evaluate, log_evidence
from iwae.model import Model, ModelConfig

CONFIGS = {
    "one layer": ModelConfig(hidden=((8,),), latent=(5,), shape=(1, 16)),
    "two layers": ModelConfig(hidden=((8,), (6,)), latent=(4, 3), shape=(1, 16)),
}


@pytest.fixture(params=CONFIGS)
def model(request):
    model = Model(CONFIGS[request.param], seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    return model


@pytest.fixture
def x():
    return torch.randint(0, 2, (150, 16), generator=torch.Generator().manual_seed(0)).float()


def test_kls_of_units_add_up_to_that_of_the_image(model, x):
    """Against the Monte-Carlo mean of 2,000 draws, z = 4 (false alarms: 6e-5); seeds 0."""
    parts = units.unit_kl(model, x, draws=2000)
    assert [part.shape for part in parts] == [(150, size) for size in model.config.latent]
    total = sum(part.sum(1) for part in parts)
    with torch.no_grad():
        sample = model.sample(x, 2000, generator=torch.Generator().manual_seed(5))
    kl = (sample.log_qh - sample.log_ph).double()
    se = (kl.var(0) / 2000).sum().sqrt() / len(x)  # of the mean over the images
    both = se * math.sqrt(1 if len(parts) == 1 else 2)
    assert abs((total - kl.mean(0)).mean()) < 4 * both


def test_the_kl_of_one_layer_is_the_closed_form(x):
    model = Model(CONFIGS["one layer"], seed=2)
    with torch.no_grad():
        mean, log_std = model.encoder[0](x)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(units.unit_kl(model, x)[0].float(), exact)


def test_bands_of_units_far_from_the_threshold_have_no_width():
    means = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means *= torch.tensor([1, 1, 1e-4, 1e-4, 1e-4, 1e-4])
    for band in units.count_bands(means, means, (20, 500), threshold=1e-2):
        assert (band.mean, band.low, band.high) == (2, 2, 2)


def test_a_band_narrows_and_centres_with_more_images():
    """A unit at the threshold is active in half of the large sets; one at 1.5 times it in ever more."""
    means = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = (means - means.mean(0)) / means.std(0) * torch.tensor([0.1, 0.1 * math.sqrt(1.5)])
    few, many = units.count_bands(means, means, (10, 4000), threshold=0.01, resamples=400)
    assert abs(many.mean - 1.5) < 4 * 0.5 / math.sqrt(400) and many.low >= 1
    assert few.low == 0 and few.mean < many.mean
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        units.count_bands(means, means, (1,), threshold=0.01)


def test_activity_of_the_means_is_active_units(model, x):
    for one, halves in zip(active_units(model, x, seed=3), unit_means(model, x, seed=3), strict=True):
        other = activity_of(*halves)
        assert one.covariance.equal(other.covariance) and one.mean.equal(other.mean)


def test_with_every_unit_nothing_is_lost(model, x):
    layers = active_units(model, x)
    every = [torch.ones(size, dtype=torch.bool) for size in model.config.latent]
    loss = units.pruning_loss(model, x, layers, every, samples=7)
    torch.testing.assert_close(loss.full, loss.pruned, rtol=1e-5, atol=1e-5)
    assert loss.full.equal(log_evidence(model, x, samples=7))


def test_without_the_inactive_units_it_is_the_pruned_nll(model, x):
    threshold = sorted(v for layer in active_units(model, x) for v in layer.variance.tolist())[1]  # two go
    metrics = evaluate(model, x, samples=30, threshold=threshold)
    loss = units.pruning_loss(model, x, metrics.activity, [layer.active for layer in metrics.activity], samples=30)
    assert loss.pruned.equal(-metrics.pruned_nll)
    assert loss.mean == pytest.approx((metrics.pruned_nll - metrics.nll).mean().item(), abs=1e-4)
    difference = metrics.pruned_nll - metrics.nll
    assert loss.se == pytest.approx((difference.std() / math.sqrt(150)).item(), rel=1e-3)


def test_a_unit_that_nothing_depends_on_costs_nothing(x):
    """It is drawn from the prior and the decoder does not look: L_k is the same without it, draw by draw."""
    model = Model(CONFIGS["one layer"], seed=4)
    with torch.no_grad():
        model.encoder[0].mean.weight[2] = model.encoder[0].log_std.weight[2] = 0
        model.pixel_hidden[0].weight[:, 2] = 0
    layers = active_units(model, x)
    loss = units.pruning_loss(model, x, layers, units.all_but(layers, 0, 2), samples=5)
    torch.testing.assert_close(loss.full, loss.pruned, rtol=1e-5, atol=1e-5)
    assert units.unit_kl(model, x)[0][:, 2].abs().max() == 0
    other = units.pruning_loss(model, x, layers, units.all_but(layers, 0, 0), samples=5)
    assert (other.full - other.pruned).abs().max() > 1e-3


def test_a_unit_that_does_not_exist_is_named(model, x):
    layers = active_units(model, x)
    with pytest.raises(ValueError, match="no unit 9 in layer 0"):
        units.all_but(layers, 0, 9)
    with pytest.raises(ValueError, match="no unit 0 in layer 5"):
        units.all_but(layers, 5, 0)


def test_a_traversal_is_the_decoder_along_one_unit(model):
    top = len(model.config.latent) - 1
    h = torch.linspace(-1, 1, model.config.latent[top])
    pictures = units.traverse(model, h, top, 1, [-2.0, h[1].item(), 2.0])
    with torch.no_grad():
        torch.testing.assert_close(pictures[1], model.decode(model.ancestral_sample(h.unsqueeze(0)))[0])
        moved = h.clone()
        moved[1] = 2.0
        torch.testing.assert_close(pictures[2], model.decode(model.ancestral_sample(moved.unsqueeze(0)))[0])


def test_a_smaller_model_can_have_the_larger_bound():
    """A unit that nothing depends on, but whose q is not its prior: p(x) is the same without it, and each draw's log w
    loses log q(h_u|x) − log p(h_u|h₂), whose mean is their KL. At k = 1 the bound rises by that; with many draws, by
    nothing. Two layers, h_u ~ N(0, e) under q and N(0, 1) under p; z = 4 (false alarms: 2 × 6e-5), seeds 0."""
    model = Model(CONFIGS["two layers"], seed=4)
    with torch.no_grad():
        for gaussian, log_std in ((model.encoder[0], 0.5), (model.decoder[0], 0.0)):
            for layer in (gaussian.mean, gaussian.log_std):
                layer.weight[2] = layer.bias[2] = 0
            gaussian.log_std.bias[2] = log_std
        model.pixel_hidden[0].weight[:, 2] = model.encoder[1].hidden[0].weight[:, 2] = 0
    x = torch.randint(0, 2, (300, 16), generator=torch.Generator().manual_seed(0)).float()
    layers = active_units(model, x)
    few, many = (units.pruning_loss(model, x, layers, units.all_but(layers, 0, 2), samples=k) for k in (1, 500))
    kl = torch.distributions.kl_divergence(*(torch.distributions.Normal(0.0, math.exp(s)) for s in (0.5, 0.0))).item()
    assert abs(few.mean + kl) < 4 * few.se < kl
    assert abs(many.mean) < 4 * many.se + 0.005 and many.se < 0.01
