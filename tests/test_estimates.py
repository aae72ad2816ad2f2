"""Bounds from disjoint groups of one cached draw, and one step of training on it."""

import math

import pytest
import torch

from iwae.bounds import Bound, iwae
from iwae.gradients import Estimator
from iwae.inference.estimates import estimate, step
from iwae.inference.posterior import Posterior

ALL = [
    Bound("vae"),
    Bound("iwae"),
    Bound("power-mean", {"p": 2.0}),
    Bound("median"),
    Bound("l-alpha", {"alpha": 0.5}),
    Bound("renyi", {"alpha": 0.5}),
    Bound("ciwae", {"beta": 0.25}),
    Bound("miwae", {"k1": 5, "k2": 4}),
]


def of_weights(log_w) -> Posterior:
    """Draws of these log-weights, where log p(x|h) is 20 nats more."""
    zeros, log_w = torch.zeros(len(log_w)), torch.as_tensor(log_w, dtype=torch.float32)
    return Posterior(zeros, zeros, zeros, (zeros[:, None],), log_w + 20, log_w, 0)


@pytest.fixture(scope="module")
def drawn():
    return of_weights(torch.randn(1010, generator=torch.Generator().manual_seed(0)) * 2 - 90)


def test_by_hand():
    """Two groups of two draws, and a fifth that makes no group."""
    found = estimate(of_weights([math.log(w) for w in (1, 3, 2, 6, 100)]), Bound("iwae"), 2)
    assert (found.k, found.groups) == (2, 2)
    assert found.value == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert found.error == pytest.approx(math.log(2) / 2)  # |difference|/√2/√2


@pytest.mark.parametrize("bound", ALL, ids=lambda bound: bound.name)
def test_every_bound_is_the_mean_over_groups(drawn, bound):
    found = estimate(drawn, bound, 20)
    kl = -20 * (bound.kl_weight - 1)  # what its weight adds to every log-weight
    values = torch.stack([bound(group[:, None])[0] for group in drawn.log_w[:1000].double().split(20)]) + kl
    assert found.groups == 50 and found.value == pytest.approx(values.mean().item())
    assert found.error == pytest.approx(values.std().item() / math.sqrt(50))


def test_all_draws_in_one_group_have_no_error(drawn):
    found = estimate(drawn, Bound("iwae"), drawn.samples)
    assert found.value == pytest.approx(drawn.log_p) and (found.groups, found.error) == (1, None)


@pytest.mark.parametrize("bound", ALL, ids=lambda bound: bound.name)
def test_a_step_weighs_its_draws_as_training_does(drawn, bound):
    taken = step(drawn, bound, 20, 3)
    assert taken.draws.tolist() == list(range(60, 80))
    torch.testing.assert_close(taken.log_w, drawn.log_w[60:80].double())
    torch.testing.assert_close(taken.gradient[:, None], Estimator(bound, 20).weights(taken.log_w[:, None]).decoder)
    assert taken.gradient.sum().item() == pytest.approx(1) and taken.normalised.sum().item() == pytest.approx(1)
    assert taken.bound == pytest.approx(bound(taken.log_w[:, None]).item() - 20 * (bound.kl_weight - 1))
    assert 1 <= taken.effective <= 20 + 1e-9


def test_iwae_weighs_by_the_normalised_weights_and_vae_all_alike(drawn):
    taken = step(drawn, Bound("iwae"), 10)
    torch.testing.assert_close(taken.gradient, taken.normalised)
    assert taken.bound == pytest.approx(iwae(taken.log_w[:, None]).item())
    torch.testing.assert_close(step(drawn, Bound("vae"), 10).gradient, torch.full((10,), 0.1).double())
    assert step(drawn, Bound("vae"), 10).effective == pytest.approx(10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda drawn: estimate(drawn, Bound("iwae"), 0), "between 1 and the 1010 samples, not 0"),
        (lambda drawn: estimate(drawn, Bound("iwae"), 1011), "between 1 and the 1010 samples, not 1011"),
        (lambda drawn: estimate(drawn, ALL[-1], 10), "k1·k2 must equal k = 10"),
        (lambda drawn: step(drawn, Bound("iwae"), 100, 10), "10 groups of 100; there is no group 10"),
    ],
)
def test_refusals(drawn, call, says):
    with pytest.raises(ValueError, match=says):
        call(drawn)
