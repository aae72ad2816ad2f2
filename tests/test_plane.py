"""The exact posterior on a grid, against closed forms and against sampling."""

import math

import pytest
import torch

from iwae.inference.exact_posterior import plane, radius
from iwae.inference.posterior import Posterior, posterior
from iwae.model import LOG_2PI, Model, ModelConfig
from tests.linear_gaussian import LinearGaussian

FLAT = ModelConfig(hidden=((12,),), latent=(2,), shape=(1, 24))


class Exact(LinearGaussian):
    """Two latent units; the posterior is Gaussian with a diagonal covariance, as ``log_std`` has it."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__(latent=2)

    def posterior(self, x, shift=0.0, wider=1.0, samples=4000):
        mean, log_std = self.encode_first(x[None])
        mean, std = mean[0].detach() + shift, wider * log_std[0].detach().exp()
        noise = torch.randn(samples, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        h = mean + std * noise
        log_px, log_ph = self.log_joint(x[None], (h[:, None],))
        log_q = (-0.5 * noise.square() - std.log()).sum(1) - LOG_2PI
        log_w = (log_px + log_ph)[:, 0] - log_q
        return Posterior(x, mean, std, (h,), log_px[:, 0].detach(), log_w.detach(), 0)


@pytest.fixture(scope="module")
def model():
    return Exact()


@pytest.fixture(scope="module")
def x():
    return torch.randn(6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize(("shift", "wider"), [(0.0, 1.0), (0.5, 1.0), (3.0, 0.3), (0.0, 8.0)])
def test_the_grid_has_the_gaussian_and_its_log_p_wherever_q_lies(model, x, shift, wider):
    found = plane(model, drawn := model.posterior(x, shift, wider))
    assert found.log_p == pytest.approx(model.log_p(x[None])[0].item(), abs=1e-5)  # 1e-6 of the mass lies outside
    assert found.error < 1e-5
    mean, log_std = model.encode_first(x[None])
    mass = found.log_posterior.exp()
    assert mass.sum() * (found.first[1] - found.first[0]) * (found.second[1] - found.second[0]) == pytest.approx(1)
    weights = mass / mass.sum()
    for unit, (points, axis) in enumerate(((found.first, 0), (found.second, 1))):
        share = weights.sum(axis)
        average = (share * points).sum()
        assert average.item() == pytest.approx(mean[0, unit].item(), abs=1e-4)
        spread = (share * (points - average).square()).sum().sqrt()
        assert spread.item() == pytest.approx(log_std[0, unit].exp().item(), rel=1e-4)
    assert found.kl == pytest.approx(found.log_p - drawn.elbo)


def test_regions_and_ellipses_of_a_gaussian_agree(model, x):
    """q is the posterior here: its ellipse of a share holds that share, up to the cells on its border."""
    found = plane(model, model.posterior(x))
    for share in (0.5, 0.9, 0.99):
        assert found.inside(share) == pytest.approx(share, abs=0.01)
        held = found.regions <= share
        assert held.any() and not held.all()
        centre = found.drawn.mean
        grid = torch.stack(torch.meshgrid(found.second, found.first, indexing="ij")[::-1], -1)
        reach = ((grid - centre) / found.drawn.std).norm(dim=-1)[held].max().item()
        assert reach == pytest.approx(radius(share), abs=0.1)
    assert abs(found.kl) < 1e-5


def test_the_share_of_q_that_misses_is_seen(model, x):
    assert plane(model, model.posterior(x, shift=3.0)).inside() < 0.01
    assert plane(model, model.posterior(x, wider=0.2)).inside() < 0.25


def test_log_p_agrees_with_importance_sampling():
    """Of a neural model, from 20,000 draws: within 4 s.e., false alarms 6e-5."""
    model = Model(FLAT, seed=3)
    x = torch.randint(0, 2, (24,), generator=torch.Generator().manual_seed(7)).float()
    drawn = posterior(model, x, samples=20_000, seed=1)
    found = plane(model, drawn)
    assert abs(found.log_p - drawn.log_p) < 4 / math.sqrt(drawn.ess) + found.error
    assert found.error < 1e-4


def test_the_radius_of_a_share():
    assert radius(1 - math.exp(-0.5)) == pytest.approx(1)


@pytest.mark.parametrize(("latent", "says"), [((3,), "not 3"), ((4, 2), "not 4 and 2")])
def test_other_latent_spaces_are_refused(latent, says):
    model = Model(ModelConfig(hidden=((12,),) * len(latent), latent=latent, shape=(1, 24)))
    with pytest.raises(ValueError, match=f"one stochastic layer of 2 units, {says}"):
        plane(model, posterior(model, torch.zeros(24), samples=10))
