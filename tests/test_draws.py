"""What draws from a posterior decode to, against closed forms."""

import pytest
import scipy.stats
import torch

from iwae.analysis import draws
from iwae.analysis.draws import DecodedDraws
from iwae.inference.posterior import posterior, reconstruct
from iwae.model import Model, ModelConfig


def test_the_spread_of_a_pixel_that_is_on_in_part_of_the_draws():
    """That of a Bernoulli variable, √(w(1 − w)); ½ at most."""
    pictures = torch.tensor([[1.0, 1.0, 0.3], [0.0, 1.0, 0.3], [1.0, 1.0, 0.3]])
    found = DecodedDraws(pictures, torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64))
    torch.testing.assert_close(found.spread, torch.tensor([(0.3 * 0.7) ** 0.5, 0, 0], dtype=torch.float64))
    assert found.effective == pytest.approx(1 / (0.01 + 0.49 + 0.04))


def test_by_weight_it_is_the_spread_of_the_reconstructions():
    model = Model(ModelConfig(hidden=((12,),), latent=(3,), shape=(1, 24)), seed=2)
    drawn = posterior(model, torch.ones(24), samples=300)
    found = draws.decode(model, drawn.h[0], drawn.weights)
    torch.testing.assert_close(found.spread.float(), reconstruct(model, drawn).spread, atol=2e-4, rtol=0)
    assert draws.decode(model, drawn.h[0]).effective == pytest.approx(300)


def test_shares_sum_to_one_and_their_errors_are_those_of_a_beta():
    found = DecodedDraws(torch.zeros(40, 1), torch.full((40,), 1 / 40, dtype=torch.float64))
    share, se = found.shares(torch.tensor([2] * 30 + [0] * 10), 4)
    torch.testing.assert_close(share, torch.tensor([0.25, 0, 0.75, 0], dtype=torch.float64))
    for one, error in zip(share.tolist(), se.tolist(), strict=True):
        assert error == pytest.approx(scipy.stats.beta(40 * one + 0.5, 40 * (1 - one) + 0.5).std())


def test_the_vote_of_the_nearest():
    """Two of the five nearest are of each of two classes: the nearest decides; a plain majority beats it."""
    images = torch.tensor([[0, 0], [0, 10], [0, 20], [0, 30], [0, 40], [255, 255]], dtype=torch.uint8)
    even, most = torch.tensor([4, 4, 7, 7, 1, 9]), torch.tensor([4, 7, 7, 7, 1, 9])
    picture = torch.zeros(1, 2)
    assert draws.nearest_class(picture, images, even).tolist() == [4]
    assert draws.nearest_class(picture, images, most).tolist() == [7]
    right, se = draws.accuracy(picture.repeat(4, 1), torch.tensor([4, 4, 4, 1]), images, even)
    assert right == 0.75 and se == pytest.approx(0.25)
