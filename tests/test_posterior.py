"""One image: the cached draw against the evaluation, its weights, and the L_k curve."""

import math
import sys

import numpy as np
import pytest
import torch

from iwae.evaluation.metrics import evaluate
from iwae.inference.posterior import Posterior, posterior, reconstruct
from iwae.model import Model, ModelConfig
from iwae.system import optional

TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), shape=(1, 24))


@pytest.fixture(scope="module")
def model():
    return Model(TWO, seed=4)


@pytest.fixture(scope="module")
def x():
    return torch.randint(0, 2, (24,), generator=torch.Generator().manual_seed(7)).float()


def of_weights(log_w) -> Posterior:
    zeros = torch.zeros(len(log_w))
    return Posterior(zeros, zeros, zeros, (zeros[:, None],), zeros, torch.as_tensor(log_w, dtype=torch.float32), 0)


def test_weights_by_hand():
    drawn = of_weights([math.log(1), math.log(2), math.log(5)])
    assert drawn.log_p_se is None  # three weights have no tail to look at
    torch.testing.assert_close(drawn.weights, torch.tensor([1, 2, 5]).double() / 8, rtol=1e-6, atol=0)
    assert drawn.ess == pytest.approx(64 / 30)
    assert drawn.log_p == pytest.approx(math.log(8 / 3))
    assert drawn.elbo == pytest.approx(math.log(10) / 3)
    spread = np.std([1, 2, 5]) / np.mean([1, 2, 5]) / math.sqrt(300)
    assert of_weights([math.log(w) for w in (1, 2, 5)] * 100).log_p_se == pytest.approx(spread, rel=1e-5)
    assert [drawn.carrying(share) for share in (0.5, 0.7, 0.9)] == [1, 2, 3]


def test_no_error_where_the_weights_may_have_no_variance():
    """Weights u^−0.4 have a variance, u^−0.9 have none; the delta method would give 0.05 where log p̂ errs by more."""
    u = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    light, heavy = of_weights(-0.4 * u.log()), of_weights(-0.9 * u.log())
    assert light.k_hat < 0.5 < heavy.k_hat
    assert abs(light.log_p - math.log(1 / 0.6)) < 4 * light.log_p_se
    assert heavy.log_p_se is None and heavy.log_p < math.log(1 / 0.1)


def test_equal_weights_are_worth_all_draws():
    drawn = of_weights([-90.0] * 100)
    assert drawn.ess == pytest.approx(100) and drawn.log_p_se == pytest.approx(0, abs=1e-6)
    assert drawn.carrying(0.9) == 90


def test_log_p_agrees_with_the_evaluation(model, x):
    """Two independent estimates of log p(x) from 20,000 draws each, within 4 s.e. of their difference."""
    drawn = posterior(model, x, samples=20_000, seed=1)
    metrics = evaluate(model, x[None].repeat(2, 1), samples=20_000, prune=False)
    error = math.hypot(1 / math.sqrt(drawn.ess), math.sqrt(1 / metrics.ess[0].item() - 1 / 20_000))
    assert abs(drawn.log_p + metrics.nll[0].item()) < 4 * error


def test_repeatable_and_a_prefix(model, x):
    long, short = posterior(model, x, samples=1200, seed=5), posterior(model, x, samples=30, seed=5)
    torch.testing.assert_close(long.log_w[:30], short.log_w)
    assert long.h[0].shape == (1200, 5) and long.h[1].shape == (1200, 3)
    assert not torch.equal(short.log_w, posterior(model, x, samples=30, seed=6).log_w)
    with torch.no_grad():
        mean, log_std = model.encoder[0](x)
    torch.testing.assert_close(long.mean, mean)
    torch.testing.assert_close(long.std, log_std.exp())


def test_curve_ends_are_exact_and_it_rises():
    log_w = torch.randn(600, generator=torch.Generator().manual_seed(0)) * 2 - 90
    drawn = of_weights(log_w)
    ks = np.array([1, 2, 5, 20, 100, 600])
    curve = drawn.curve(ks)
    assert curve[0] == pytest.approx(drawn.elbo, abs=1e-5)
    assert curve[-1] == pytest.approx(drawn.log_p, abs=1e-5)
    assert (np.diff(curve) > 0).all()
    pairs = (log_w[:, None].double().logaddexp(log_w[None].double()) - math.log(2))[~torch.eye(600, dtype=bool)]
    error = pairs.std().item() / math.sqrt(20 * 300)  # of 20 orders with 300 pairs each
    assert abs(curve[1] - pairs.mean().item()) < 5 * error


@pytest.mark.parametrize("step", [0.1, 30.0, 1000.0], ids=lambda step: f"log-weights span {120 * step:g} nats")
def test_curve_is_the_mean_of_the_groups_own_logsumexp(step):
    """However far apart the weights are: e^−708 is 0 in a double, but log-weights of such a group are not."""
    drawn = of_weights([-50 - step * i for i in range(121)])
    ks, random = np.array([1, 2, 3, 7, 60, 121]), np.random.default_rng(4)
    orders = [torch.from_numpy(random.permutation(drawn.log_w.double().numpy())) for _ in range(20)]
    for k, found in zip(ks, drawn.curve(ks, seed=4), strict=True):
        groups = [order[: 121 // k * k].view(-1, k)[:, :].logsumexp(1) for order in orders[:k]]
        assert found == pytest.approx(torch.stack(groups).mean().item() - math.log(k), rel=1e-12)
    assert drawn.curve(ks)[0] == pytest.approx(drawn.elbo, rel=1e-12)
    assert drawn.curve(ks)[-1] == pytest.approx(drawn.log_p, rel=1e-12)


def test_resampling_follows_the_weights():
    """Counts of 100,000 resampled indices against the weights: chi-square with 3 degrees below 21.1 (1e-4)."""
    drawn = of_weights([math.log(w) for w in (1, 2, 3, 4)])
    counts = np.bincount(drawn.resample(100_000, seed=2).numpy(), minlength=4)
    expected = 100_000 * drawn.weights.numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 21.1


def test_reconstructions(model, x):
    drawn = posterior(model, x, samples=700, seed=0)
    pictures = reconstruct(model, drawn)
    with torch.no_grad():
        decoded = model.decode(drawn.h[0])
        torch.testing.assert_close(pictures.from_mean, model.decode(drawn.mean))
    torch.testing.assert_close(pictures.average, decoded.mean(0))
    torch.testing.assert_close(pictures.weighted, (drawn.weights[:, None] * decoded).sum(0).float())


@pytest.mark.parametrize(
    ("shape", "samples", "says"), [((23,), 5, "have 1×24 pixels, so x must be"), ((24,), 0, "not 0")]
)
def test_refusals(model, shape, samples, says):
    with pytest.raises(ValueError, match=says):
        posterior(model, torch.zeros(shape), samples=samples)


def test_curve_refuses_other_k(model, x):
    with pytest.raises(ValueError, match="between 1 and the 30 samples, not 1…31"):
        posterior(model, x, samples=30).curve(np.array([1, 31]))


@pytest.mark.filterwarnings("ignore:.*ArviZ is undergoing")
def test_in_arviz_s_format(model, x):
    """Draws chosen by weight, or all with their weights; their likelihood; and draws of the prior."""
    pytest.importorskip("arviz", reason="requirements-extra.txt")
    drawn = posterior(model, x, samples=300, seed=2)
    made = drawn.to_inference_data(model, draws=4000, seed=1)
    chosen = made["sample_stats"]["draw_of_q"].values[0]
    np.testing.assert_array_equal(chosen, drawn.resample(4000, seed=1))
    for layer, h in enumerate(drawn.h, 1):
        values = made["posterior"][f"h{layer}"]
        assert values.dims == ("chain", "draw", f"h{layer}_unit") and made["prior"][f"h{layer}"].shape == values.shape
        np.testing.assert_array_equal(values.values[0], h[chosen])
    np.testing.assert_array_equal(made["log_likelihood"]["x"].values[0, :, 0], drawn.log_px[chosen])
    np.testing.assert_array_equal(made["observed_data"]["x"].values[0], x)
    top = made["prior"]["h2"].values
    assert abs(top.mean()) < 4 / math.sqrt(top.size) and abs(top.var() - 1) < 4 * math.sqrt(2 / top.size)
    assert made["posterior"].attrs["log_p"] == drawn.log_p and made["posterior"].attrs["units"] == "nats"

    weighted = drawn.to_inference_data(weighted=True)
    weights = np.exp(weighted["sample_stats"]["log_weight"].values[0])
    np.testing.assert_allclose(weights, drawn.weights, rtol=1e-12)
    assert "prior" not in getattr(weighted, "children", weighted)  # of a DataTree, or of InferenceData
    first = weighted["posterior"]["h1"].values[0]
    np.testing.assert_array_equal(first, drawn.h[0])
    both = (weights @ first, made["posterior"]["h1"].values[0].mean(0))
    error = np.sqrt(weights @ (first - both[0]) ** 2 / 4000)
    assert (np.abs(both[0] - both[1]) < 5 * error).all()


@pytest.mark.parametrize(
    ("options", "told"), [({"draws": 0}, "at least 1, not 0"), ({"draws": 5, "weighted": True}, "leave draws out")]
)
def test_what_arviz_cannot_be_given(model, x, options, told):
    pytest.importorskip("arviz", reason="requirements-extra.txt")
    with pytest.raises(ValueError, match=told):
        posterior(model, x, samples=10).to_inference_data(**options)


def test_without_arviz_it_is_named(model, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(optional.MissingError, match="ArviZ's format needs arviz: pip install"):
        posterior(model, x, samples=10).to_inference_data()
