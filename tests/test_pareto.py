"""Pareto k̂ against tails of known shape."""

import math

import numpy as np
import pytest

from iwae.inference import pareto


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.3, 0.7, 1.2])
def test_the_fit_recovers_a_known_shape_and_scale(k):
    """20,000 draws with scale 3: within 4 of the standard errors (1 + k)/√n and σ√(2(1 + k)/n) of the best estimator.

    Of five shapes and two numbers each, one in 1,600 such tests would fail by chance.
    """
    u = np.random.default_rng(1).random(20_000)
    excess = 3 * (-np.log(u) if k == 0 else (u**-k - 1) / k)
    shape, scale = pareto.fit(excess)
    assert abs(shape - k) < 4 * (1 + k) / math.sqrt(20_000)
    assert abs(scale - 3) < 4 * 3 * math.sqrt(2 * (1 + k) / 20_000)


@pytest.mark.parametrize("k", [0.3, 0.6, 1.0])
def test_k_hat_of_weights_with_a_pareto_tail(k):
    """w = U^−k: the excesses over any threshold are generalized Pareto with shape k. Tail 950 of 100,000; 4 s.e."""
    log_w = -k * np.log(np.random.default_rng(2).random(100_000))
    count = pareto.tail_length(100_000)
    expected = (count * k + 5) / (count + 10)
    assert abs(pareto.k_hat(log_w) - expected) < 4 * (1 + k) / math.sqrt(count)


def test_the_estimate_by_hand():
    """Zhang & Stephens step by step, in plain Python, with the prior of loo."""
    x = sorted([0.1, 0.4, 0.2, 1.7, 0.9, 0.3, 5.0, 0.6])
    n, m = 8, 32
    thetas = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * x[1]) for j in range(1, m + 1)]
    shapes = [sum(math.log1p(-theta * value) for value in x) / n for theta in thetas]
    likelihoods = [n * (math.log(-theta / k) - k - 1) for theta, k in zip(thetas, shapes, strict=True)]
    weights = [1 / sum(math.exp(other - one) for other in likelihoods) for one in likelihoods]
    best = sum(weight * theta for weight, theta in zip(weights, thetas, strict=True))
    k = sum(math.log1p(-best * value) for value in x) / n
    assert pareto.fit(np.array(x)) == pytest.approx((k, -k / best))


def test_a_constant_changes_nothing():
    log_w = np.random.default_rng(3).normal(scale=2, size=5000)
    assert pareto.k_hat(log_w - 9000) == pytest.approx(pareto.k_hat(log_w), rel=1e-6)
    assert pareto.k_hat(log_w) > pareto.k_hat(log_w / 10)


def test_equal_weights_have_no_tail():
    assert pareto.k_hat(np.full(1000, -90.0)) == -math.inf
    assert pareto.reading(-math.inf)[0] == "good"


def test_one_draw_above_all_others_is_as_bad_as_can_be():
    assert pareto.k_hat(np.arange(1000) * 1000.0) == math.inf
    assert pareto.reading(math.inf)[0] == "very bad"


def test_the_tail_is_that_of_loo():
    assert [pareto.tail_length(samples) for samples in (100, 225, 5000, 50_000)] == [20, 45, 213, 671]
    with pytest.raises(ValueError, match="at least 21 samples, not 20"):
        pareto.k_hat(np.arange(20.0))
    assert math.isfinite(pareto.k_hat(np.log1p(np.arange(21.0))))
    with pytest.raises(ValueError, match="at least 5 excesses, not 4"):
        pareto.fit(np.arange(1.0, 5.0))


@pytest.mark.parametrize(("k", "word"), [(0.49, "good"), (0.5, "ok"), (0.69, "ok"), (0.7, "bad"), (1.0, "very bad")])
def test_readings(k, word):
    assert pareto.reading(k)[0] == word
