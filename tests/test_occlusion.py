"""A picture with hidden pixels: between the plain posterior and the prior."""

import math

import numpy as np
import pytest
import torch

from iwae import occlusion
from iwae.model import Model, ModelConfig, log_normal
from iwae.occlusion import FILLINGS, fillings, occluded
from iwae.posterior import posterior, reconstruct

TWO = ModelConfig(hidden=((12,), (8,)), latent=(5, 3), pixels=24)
NOTHING = torch.zeros(24).bool()


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
    plain, same = posterior(model, x, samples=700), occluded(model, x, ~NOTHING, samples=700)
    assert torch.equal(plain.log_w, same.log_w) and torch.equal(plain.h[0], same.h[0])


@torch.no_grad()
def mixture(model, x, seen, drawn) -> torch.Tensor:
    """log q of the draws, layer by layer, from the fillings anew; each filling has an equal share of the draws."""
    filled = fillings(model, x, seen, torch.Generator().manual_seed(drawn.seed))
    h = [layer.double() for layer in drawn.h]
    each = [log_normal(h[0], *(part.double() for part in model.encoder[0](one))) for one in filled]
    log_q = torch.stack(each).logsumexp(0) - math.log(len(filled))
    for encoder, below, above in zip(model.encoder[1:], drawn.h, h[1:], strict=False):
        log_q = log_q + log_normal(above, *(part.double() for part in encoder(below)))
    return log_q


def test_all_hidden_leaves_the_prior(model, x):
    """log p(x_visible|h) = 0, weights p(h)/q(h), whose mean is 1: log p̂ within 4 s.e. of 0."""
    drawn = occluded(model, x, NOTHING, samples=20_000)
    assert not drawn.log_px.any()
    with torch.no_grad():
        _, log_p = model.log_joint(x[None], tuple(layer[:, None] for layer in drawn.h))
    expected = log_p[:, 0].double() - mixture(model, x, NOTHING, drawn)
    torch.testing.assert_close(drawn.log_w.double(), expected, rtol=0, atol=1e-4)
    assert abs(drawn.log_p) < 4 / np.sqrt(drawn.ess)


def test_the_likelihood_counts_the_visible_pixels_alone(model, x):
    seen = torch.arange(24) % 3 > 0
    drawn = occluded(model, x, seen, samples=50)
    with torch.no_grad():
        p = model.decode(drawn.h[0]).double()
    expected = torch.where(x > 0, p, 1 - p).log()[:, seen].sum(1)
    torch.testing.assert_close(drawn.log_px.double(), expected, rtol=0, atol=1e-4)
    hidden = x.where(seen, 1 - x)  # what lies under the cover makes no difference
    assert torch.equal(occluded(model, hidden, seen, samples=50).log_w, drawn.log_w)


@pytest.mark.parametrize("samples", [7, 50, 120, 2100])
def test_any_number_of_draws_is_shared_among_the_fillings(model, x, samples):
    drawn = occluded(model, x, torch.arange(24) > 11, samples=samples)
    assert drawn.samples == samples and [len(layer) for layer in drawn.h] == [samples] * len(drawn.h)
    assert drawn.log_w.isfinite().all()


def test_both_values_of_a_hidden_pixel_add_up(model, x):
    """p(x_visible) = p(with the pixel off) + p(with it on), each estimated on its own, within 4 s.e."""
    seen = torch.arange(24) != 5
    part = occluded(model, x, seen, samples=20_000)
    whole = [posterior(model, x.where(seen, torch.tensor(value)), samples=20_000) for value in (0.0, 1.0)]
    p = [np.exp(drawn.log_p) for drawn in whole]
    error = np.hypot(
        1 / np.sqrt(part.ess), np.hypot(*(a / np.sqrt(d.ess) for a, d in zip(p, whole, strict=True))) / sum(p)
    )
    assert abs(part.log_p - np.log(sum(p))) < 4 * error


def test_fillings_agree_with_what_is_seen(model, x):
    seen = torch.arange(24) > 11
    filled = fillings(model, x, seen, torch.Generator().manual_seed(0))
    assert filled.shape == (FILLINGS, 24) and set(filled.unique().tolist()) == {0.0, 1.0}
    assert (filled[:, seen] == x[seen]).all() and not filled[0, ~seen].any()
    assert filled[1:, ~seen].unique(dim=0).shape[0] > 10


def test_the_spread_is_the_deviation_of_the_decoded_draws(model, x):
    drawn = occluded(model, x, torch.arange(24) > 11, samples=700)
    with torch.no_grad():
        decoded = model.decode(drawn.h[0]).double()
    mean = drawn.weights @ decoded
    expected = (drawn.weights @ (decoded - mean).square()).sqrt()
    torch.testing.assert_close(reconstruct(model, drawn).spread.double(), expected, rtol=0, atol=1e-3)


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
