"""Bounds: closed forms, the identities between them, and their gradients."""

import itertools
import math

import numpy as np
import pytest
import torch

from iwae import bounds
from iwae.bounds import OBJECTIVES, Bound

torch.manual_seed(0)
LOG_W = torch.randn(12, 5, dtype=torch.float64) * 3 - 90  # k, batch

EVERY = [
    Bound("vae"),
    Bound("iwae"),
    Bound("power-mean", {"p": 2.0}),
    Bound("power-mean", {"p": -1.5}),
    Bound("median"),
    Bound("l-alpha", {"alpha": 0.25}),
    Bound("renyi", {"alpha": 0.25}),
    Bound("ciwae", {"beta": 0.25}),
    Bound("miwae", {"k1": 4, "k2": 3}),
]
SMOOTH = [bound for bound in EVERY if bound.name != "median"]


def same(bound: Bound, other: Bound, **tolerance) -> None:
    torch.testing.assert_close(bound(LOG_W), other(LOG_W), **tolerance)


def test_by_hand():
    log_w = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64).log()[:, None]
    assert bounds.vae(log_w).item() == pytest.approx(math.log(64) / 4)
    assert bounds.iwae(log_w).item() == pytest.approx(math.log(15 / 4))
    assert bounds.power_mean(log_w, p=2).item() == pytest.approx(math.log(85 / 4) / 2)
    assert bounds.power_mean(log_w, p=-1).item() == pytest.approx(-math.log((1 + 1 / 2 + 1 / 4 + 1 / 8) / 4))
    assert bounds.median(log_w).item() == pytest.approx(math.log(8) / 2)  # of the two middle ones, 2 and 4
    assert bounds.median(log_w[:3]).item() == pytest.approx(math.log(2))
    assert bounds.renyi(log_w, alpha=0.5).item() == pytest.approx(
        2 * math.log(sum(math.sqrt(w) for w in (1, 2, 4, 8)) / 4)
    )
    log_px = log_w + torch.tensor([3.0, 1.0, 4.0, 0.0], dtype=torch.float64)[:, None]  # KL parts −3, −1, −4 and 0
    weighted = bounds.weigh_kl(log_w, log_px, 2.5)
    assert bounds.l_alpha(weighted, alpha=2.5).item() == pytest.approx(math.log(64) / 4 + 8 / 4 - 2.5 * 8 / 4)
    assert bounds.ciwae(log_w, beta=0.25).item() == pytest.approx(math.log(64) / 16 + 0.75 * math.log(15 / 4))
    groups = math.log((1 + 4) / 2) / 2 + math.log((2 + 8) / 2) / 2
    assert bounds.miwae(log_w, k1=2, k2=2).item() == pytest.approx(groups)


def test_identities():
    vae, iwae = Bound("vae"), Bound("iwae")
    same(Bound("power-mean", {"p": 1.0}), iwae)
    same(Bound("power-mean", {"p": 0.0}), vae)
    same(Bound("power-mean", {"p": 2e-4}), vae, atol=2e-4 * 9 * 2, rtol=0)  # L_p = ELBO + p·Var(log w)/2 + O(p²)
    same(Bound("renyi", {"alpha": 1.0}), vae)
    same(Bound("renyi", {"alpha": 0.0}), iwae)
    same(Bound("renyi", {"alpha": 0.3}), Bound("power-mean", {"p": 0.7}))
    log_px = torch.randn(12, 5, dtype=torch.float64)
    assert bounds.weigh_kl(LOG_W, log_px, 1.0) is LOG_W
    torch.testing.assert_close(bounds.weigh_kl(LOG_W, log_px, torch.ones(())), LOG_W)
    torch.testing.assert_close(bounds.weigh_kl(LOG_W, log_px, 0.0), log_px)
    same(Bound("ciwae", {"beta": 1.0}), vae)
    same(Bound("ciwae", {"beta": 0.0}), iwae)
    same(Bound("miwae", {"k1": 1, "k2": 12}), vae)
    same(Bound("miwae", {"k1": 12, "k2": 1}), iwae)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if not row.parameters])
def test_one_draw_is_the_log_weight(name):
    torch.testing.assert_close(Bound(name)(LOG_W[:1]), LOG_W[0])


@pytest.mark.parametrize("bound", EVERY, ids=lambda b: b.title)
def test_constant_weights_give_the_constant(bound):
    torch.testing.assert_close(bound(torch.full((12, 3), -87.5)), torch.full((3,), -87.5))


@pytest.mark.parametrize("bound", EVERY, ids=lambda b: b.title)
def test_shift_and_weights(bound):
    """bound(log w + c) = bound(log w) + c, so its weights sum to one; they are also never negative."""
    torch.testing.assert_close(bound(LOG_W + 7), bound(LOG_W) + 7)
    weights = bound.weights(LOG_W)
    torch.testing.assert_close(weights.sum(0), torch.ones(5, dtype=torch.float64))
    assert (weights >= 0).all()


def test_iwae_weights_are_the_normalised_weights():
    """By a formula of their own, and by that of the power mean, p = 1, as the derivatives of its bound."""
    torch.testing.assert_close(Bound("iwae").weights(LOG_W), LOG_W.softmax(0))
    torch.testing.assert_close(Bound("power-mean", {"p": 1.0}).weights(LOG_W), LOG_W.softmax(0))


@pytest.mark.parametrize("bound", EVERY, ids=lambda b: b.title)
def test_gradcheck(bound):
    assert torch.autograd.gradcheck(bound, LOG_W.clone().requires_grad_())


@pytest.mark.parametrize("bound", SMOOTH, ids=lambda b: b.title)
def test_curvature_is_the_diagonal_of_the_hessian(bound):
    hessian = torch.autograd.functional.hessian(lambda column: bound(column[:, None]).sum(), LOG_W[:, 0])
    torch.testing.assert_close(bound.curvature(LOG_W)[:, 0], hessian.diagonal())


def test_the_median_has_no_curvature():
    assert Bound("median").curvature(LOG_W) is None


def test_order_in_expectation():
    """VAE ≤ IWAE_k ≤ IWAE_k+1 ≤ log E w, for log-normal weights where log E w = σ²/2 is known.

    200,000 images, seed 0; each step must exceed −4 s.e. of the paired difference (false alarm 3e-5 a step).
    """
    log_w = torch.randn(8, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.5
    values = [bounds.vae(log_w)] + [bounds.iwae(log_w[:k]) for k in (2, 3, 5, 8)]
    values.append(torch.full_like(values[0], 1.5**2 / 2))
    for lower, upper in itertools.pairwise(values):
        gap = upper - lower
        assert gap.mean() > 4 * gap.std() / math.sqrt(len(gap))  # and in fact well above zero


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("elbow", {}, "vae, iwae, power-mean"),
        ("iwae", {"p": 2}, "takes no parameters, not p"),
        ("ciwae", {}, "needs beta"),
        ("ciwae", {"beta": 1.5}, "beta must be a finite number from 0 to 1, not 1.5"),
        ("ciwae", {"beta": None}, "not None"),
        ("ciwae", {"beta": "0.5"}, "not '0.5'"),
        ("ciwae", {"beta": torch.tensor(0.5)}, "not tensor"),
        ("ciwae", [0.5], "dict of names and numbers"),
        ("power-mean", {"p": math.nan}, "finite number from -100,000 to 100,000, not nan"),
        ("power-mean", {"p": 1e300}, r"not 1e\+300"),
        ("l-alpha", {"alpha": math.inf}, "from 0 to 100,000, not inf"),
        ("l-alpha", {"alpha": -0.1}, "from 0 to 100,000, not -0.1"),
        ("renyi", {"alpha": True}, "not True"),
        ("miwae", {"k1": 0, "k2": 5}, "k1 must be a whole number from 1 to 1,000,000, not 0"),
        ("miwae", {"k1": 2.5, "k2": 2}, "whole number from 1 to 1,000,000, not 2.5"),
        ("miwae", {"k1": True, "k2": 2}, "not True"),
        ("miwae", {"k1": True}, "needs k2"),
        ("miwae", {"k1": 2, "k2": "2"}, "k2 must be a whole number from 1 to 1,000,000, not '2'"),
        ("miwae", {"k1": [2], "k2": None}, r"not \[2\]"),
        ("miwae", {1: 2}, "takes k1, k2, not 1"),
        (["iwae"], {}, "unknown objective"),
        (None, {}, "unknown objective None"),
    ],
)
def test_refusals_name_what_is_allowed(name, parameters, says):
    with pytest.raises(ValueError, match=says):
        Bound(name, parameters)


def test_numbers_of_numpy_become_plain():
    assert Bound("miwae", {"k1": np.int64(4), "k2": np.uint8(3)}).parameters == {"k1": 4, "k2": 3}
    assert repr(Bound("power-mean", {"p": np.float32(2)}).parameters) == "{'p': 2.0}"


INF = math.inf


@pytest.mark.parametrize(
    ("bound", "log_w", "expected"),
    [
        (Bound("median"), [-INF, 1, 2], 1),
        (Bound("median"), [-INF, -INF, 2], -INF),
        (Bound("median"), [1, INF, INF, INF], INF),
        (Bound("ciwae", {"beta": 0}), [-INF, 0, 0], math.log(2 / 3)),
        (Bound("ciwae", {"beta": 0}), [-INF, -INF, -INF], -INF),
        (Bound("ciwae", {"beta": 1}), [INF, 0, 0], INF),
        (Bound("ciwae", {"beta": 1}), [-INF, 0, 0], -INF),
        (Bound("ciwae", {"beta": 0.5}), [-INF, 0, 0], -INF),
        (Bound("iwae"), [-INF, 0, 0], math.log(2 / 3)),
        (Bound("iwae"), [-INF, -INF, -INF], -INF),
        (Bound("vae"), [-INF, 0, 0], -INF),
        (Bound("power-mean", {"p": 2}), [-INF, 0, 0], math.log(2 / 3) / 2),
        (Bound("power-mean", {"p": -1}), [-INF, 0, 0], -INF),
        (Bound("renyi", {"alpha": 0.5}), [INF, 0, 0], INF),
        (Bound("miwae", {"k1": 3, "k2": 1}), [-INF, 0, 0], math.log(2 / 3)),
        (Bound("miwae", {"k1": 1, "k2": 3}), [-INF, 0, 0], -INF),
    ],
    ids=str,
)
def test_infinite_log_weights_have_their_limit(bound, log_w, expected):
    assert bound(torch.tensor(log_w, dtype=torch.float64)[:, None]).item() == pytest.approx(expected)


@pytest.mark.parametrize("bound", EVERY, ids=lambda b: b.title)
@pytest.mark.parametrize("place", [0, 5, 11])
def test_no_bound_passes_over_nan(bound, place):
    log_w = LOG_W.clone()
    log_w[place, 2] = math.nan
    assert bound(log_w).isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("bound", "equal"),
    [
        (Bound("vae"), True),
        (Bound("l-alpha", {"alpha": 3}), True),
        (Bound("power-mean", {"p": 0}), True),
        (Bound("renyi", {"alpha": 1}), True),
        (Bound("ciwae", {"beta": 1}), True),
        (Bound("miwae", {"k1": 1, "k2": 12}), True),
        (Bound("miwae", {"k1": 12, "k2": 1}), False),
        (Bound("iwae"), False),
        (Bound("median"), False),
        (Bound("ciwae", {"beta": 0.9}), False),
        (Bound("power-mean", {"p": -1}), False),
    ],
    ids=str,
)
def test_equal_weights(bound, equal):
    assert bound.equal_weights == equal == bool((bound.weights(LOG_W) - 1 / 12).abs().max() < 1e-9)


def test_miwae_refuses_another_k():
    with pytest.raises(ValueError, match="must equal k = 12, not 5·2 = 10"):
        Bound("miwae", {"k1": 5, "k2": 2})(LOG_W)
