"""A picture with hidden pixels: between the plain posterior and the prior."""

import numpy as np
import pytest
import torch

from iwae import occlusion
from iwae.model import Model, ModelConfig
from iwae.posterior import posterior, reconstruct

TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), pixels=24)


@pytest.fixture(scope="module", params=[TWO, ModelConfig(hidden=((9,),), latent=(2,), pixels=24)], ids=["2", "1"])
def model(request):
    model = Model(request.param, seed=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.5  # q near the prior: weights of finite variance, whose standard errors hold
    return model


@pytest.fixture(scope="module")
def x():
    return torch.randint(0, 2, (24,), generator=torch.Generator().manual_seed(7)).float()


def test_nothing_hidden_is_the_plain_posterior(model, x):
    plain, same = posterior(model, x, samples=700), posterior(model, x, samples=700, visible=torch.ones(24).bool())
    assert torch.equal(plain.log_w, same.log_w) and torch.equal(plain.h[0], same.h[0])
    assert plain.visible is same.visible is None


def test_all_hidden_leaves_the_prior(model, x):
    """log p(x_visible|h) = 0, weights p(h)/q(h|0), whose mean is 1: log p̂ within 4 s.e. of 0."""
    drawn = posterior(model, x, samples=20_000, visible=torch.zeros(24).bool())
    assert not drawn.log_px.any()
    with torch.no_grad():
        h = tuple(layer[:, None] for layer in drawn.h)
        log_q = model.log_q_fixed(torch.zeros(1, 24), h)
        _, log_p = model.log_joint(x[None], h)
    torch.testing.assert_close(drawn.log_w, (log_p - log_q)[:, 0], rtol=0, atol=1e-4)
    assert abs(drawn.log_p) < 4 * drawn.log_p_se


def test_the_likelihood_counts_the_visible_pixels_alone(model, x):
    seen = torch.arange(24) % 3 > 0
    drawn = posterior(model, x, samples=50, visible=seen)
    with torch.no_grad():
        p = model.decode(drawn.h[0]).double()
        mean, log_std = model.encoder[0](x * seen)
    expected = torch.where(x > 0, p, 1 - p).log()[:, seen].sum(1)
    torch.testing.assert_close(drawn.log_px.double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(drawn.mean, mean)
    torch.testing.assert_close(drawn.std, log_std.exp())
    hidden = x.where(seen, 1 - x)  # what lies under the cover makes no difference
    torch.testing.assert_close(posterior(model, hidden, samples=50, visible=seen).log_w, drawn.log_w)


def test_both_halves_of_the_evidence_add_up(model, x):
    """p(x) = Σ over what the hidden pixel may be: log p̂(x_visible) against both fillings, within 4 s.e."""
    seen = torch.arange(24) != 5
    part = posterior(model, x, samples=20_000, visible=seen)
    whole = [posterior(model, x.where(seen, torch.tensor(value)), samples=20_000) for value in (0.0, 1.0)]
    p = [np.exp(drawn.log_p) for drawn in whole]
    error = np.hypot(part.log_p_se, np.hypot(*(a * d.log_p_se for a, d in zip(p, whole, strict=True))) / sum(p))
    assert abs(part.log_p - np.log(sum(p))) < 4 * error


def test_the_spread_is_the_deviation_of_the_decoded_draws(model, x):
    drawn = posterior(model, x, samples=700, visible=torch.arange(24) > 11)
    with torch.no_grad():
        decoded = model.decode(drawn.h[0]).double()
    mean = drawn.weights @ decoded
    expected = (drawn.weights @ (decoded - mean).square()).sqrt()
    torch.testing.assert_close(reconstruct(model, drawn).spread.double(), expected, rtol=0, atol=1e-3)
    h = drawn.h[0].double()
    expected = np.cov(h.numpy().T, aweights=drawn.weights.numpy(), ddof=0).diagonal()
    np.testing.assert_allclose(drawn.variance.numpy(), expected, rtol=1e-6)


def test_boxes():
    seen = occlusion.visible((0, 28, 0, 14)).view(28, 28)
    assert not seen[:, :14].any() and seen[:, 14:].all()
    assert not occlusion.visible(occlusion.PARTS["bottom half"]).view(28, 28)[14:].any()
    assert occlusion.visible((3, 3, 0, 28)).all()
    assert (occlusion.veiled(np.ones(784), ~occlusion.visible((0, 1, 0, 28)))[:28] == 1).all()
    assert set(occlusion.veiled(np.ones(784), occlusion.visible((0, 1, 0, 28)))) == {0.5, 1.0}
    for box in ((-1, 2, 0, 3), (5, 4, 0, 3), (0, 29, 0, 3)):
        with pytest.raises(ValueError, match="within 0 to 28"):
            occlusion.visible(box)
