"""Latent space: closed forms against other libraries and against samples."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import NearestNeighbors

from iwae import catalog, checkpoints
from iwae.analysis import latent
from iwae.analysis.latent import Encoded, MeanEstimate
from iwae.analysis.spread import difference, spread
from iwae.data import datasets
from iwae.model import Model, ModelConfig

rng = np.random.default_rng(5)
Z = 4.5  # standard errors: a false alarm in 150,000 checks


@pytest.fixture
def encoded():
    """200 posteriors over 6 units, of which the last two are as the prior."""
    mean = rng.normal(size=(200, 6)) * [2, 1.5, 1, 0.5, 0.01, 0]
    return Encoded(mean, np.exp(0.3 * rng.normal(size=(200, 6)) - [2, 1, 1, 0.5, 0, 0]))


def turn(angle: float, mirror: bool = False) -> np.ndarray:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation * [1, -1] if mirror else rotation


def test_the_encoder_s_own_gaussian():
    model = checkpoints.load(catalog.SHIPPED / "mnist-2d-vae-k1.safetensors")[0]
    x = datasets.load("digits").binary("test")
    found = latent.encode(model, x)
    mean, log_std = model.encoder[0](x)
    np.testing.assert_array_equal(found.mean, mean.detach().double().numpy())
    np.testing.assert_allclose(found.std, log_std.exp().detach().double().numpy())
    assert found.size == 2 and len(found) == 300
    with pytest.raises(ValueError, match="no image"):
        latent.encode(model, x[:0])


def test_a_layer_above_the_first_has_the_moments_of_its_draws(monkeypatch):
    """Mean and variance of 40,000 draws within 4.5 s.e., those of a variance from the fourth moment; and an image by
    itself is encoded as among others."""
    monkeypatch.setattr(latent, "MOMENT_DRAWS", 4_000)
    model, x = Model(ModelConfig.parse("20:6/10:3"), seed=4), torch.eye(784)[:2]
    with torch.no_grad():
        model.encoder[1].hidden[0].weight.mul_(5)  # so that h₁ matters
    found = latent.encode(model, x, 2)
    for image, one in enumerate(x):
        draws = latent.draw(model, one.expand(40_000, -1), 2)
        centred = draws - draws.mean(0)
        variance, fourth = (centred**2).mean(0), (centred**4).mean(0)
        n = 1 / (1 / 40_000 + 1 / 4_000)  # both sides are sampled
        assert (np.abs(found.mean[image] - draws.mean(0)) < Z * np.sqrt(variance / n)).all()
        assert (np.abs(found.std[image] ** 2 - variance) < Z * np.sqrt((fourth - variance**2) / n)).all()
        alone = latent.encode(model, one[None], 2)
        np.testing.assert_allclose([alone.mean[0], alone.std[0]], [found.mean[image], found.std[image]], rtol=1e-5)
    with pytest.raises(ValueError, match="layers 1 to 2, not 3"):
        latent.encode(model, x, 3)


def test_kl_and_entropy_are_those_of_torch(encoded):
    q = torch.distributions.Normal(*(torch.from_numpy(part) for part in (encoded.mean, encoded.std)))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    np.testing.assert_allclose(encoded.kl_standard, kl.numpy(), rtol=1e-10)
    np.testing.assert_allclose(encoded.entropy, q.entropy().sum(1).numpy(), rtol=1e-10)
    np.testing.assert_allclose(encoded.trace, q.variance.sum(1).numpy())


def test_the_aggregated_covariance_is_that_of_draws(encoded):
    """20,000 draws of each of 200 images: the largest s.e. of a covariance is below 4.6 · √(2/4e6) = 0.0033."""
    draws = encoded.draw(20_000, seed=1)
    np.testing.assert_allclose(np.cov(draws.T), encoded.covariance, atol=Z * 0.0033)
    np.testing.assert_array_equal(encoded.draw(3, seed=1), encoded.draw(3, seed=1))


def test_pca_is_that_of_sklearn(encoded):
    points = encoded.mean
    view, theirs = latent.pca(points), PCA(2).fit(points)
    placed = theirs.transform(points)
    np.testing.assert_allclose(np.abs(view.project(points)), np.abs(placed), atol=1e-8)
    assert view.share == pytest.approx(theirs.explained_variance_ratio_.sum())
    np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(2), atol=1e-12)
    assert (view.axes[[0, 1], np.abs(view.axes).argmax(1)] > 0).all()


def test_one_unit_has_a_map_too():
    points = rng.normal(size=(50, 1))
    placed = latent.pca(points).project(points)
    np.testing.assert_allclose(placed, np.hstack([points - points.mean(), np.zeros((50, 1))]))
    np.testing.assert_allclose(latent.units(points, 0, 0).project(points), np.hstack([points, points]))
    with pytest.raises(ValueError, match="not 1"):
        latent.pca(points[:1])


def test_two_units_as_they_are(encoded):
    view = latent.units(encoded.mean, 3, 1)
    np.testing.assert_array_equal(view.project(encoded.mean), encoded.mean[:, [3, 1]])
    np.testing.assert_allclose(view.covariance(encoded.std[0]), np.diag(encoded.std[0, [3, 1]] ** 2))
    assert view.share == pytest.approx(encoded.mean.var(0)[[1, 3]].sum() / encoded.mean.var(0).sum())
    for bad in ((6, 0), (0, -1)):
        with pytest.raises(ValueError, match="there are 0 to 5"):
            latent.units(encoded.mean, *bad)


def test_a_posterior_s_ellipse_is_that_of_its_draws(encoded):
    """W diag(σ²) Wᵀ against 100,000 draws: s.e. of a variance v is v √(2/100,000); of 0.95 inside, 0.0007."""
    view = latent.pca(encoded.mean).rotated(turn(0.7))
    one = encoded.select(3)
    covariance, count = view.covariance(one.std[0]), 100_000
    placed = view.project(one.draw(count, seed=2))
    se = np.sqrt((np.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2) / count)
    assert (np.abs(np.cov(placed.T) - covariance) < Z * se).all()
    centre = view.project(one.mean)[0]
    assert latent.inside(placed, centre, covariance).mean() == pytest.approx(0.95, abs=Z * 0.0007)
    curve = latent.ellipse(centre, covariance)
    np.testing.assert_allclose(curve[0], curve[-1])
    assert latent.inside(centre + 0.999 * (curve - centre), centre, covariance).all()
    assert not latent.inside(centre + 1.001 * (curve - centre), centre, covariance).any()


def test_the_typical_posterior_of_a_class(encoded):
    members = np.arange(200) % 10 == 4
    found = encoded.average(members)
    np.testing.assert_allclose(found.mean[0], encoded.mean[members].mean(0))
    np.testing.assert_allclose(found.trace, encoded.trace[members].mean())
    with pytest.raises(ValueError, match="no image"):
        encoded.average(np.zeros(200, dtype=bool))


@pytest.mark.parametrize("mirror", [False, True])
def test_procrustes_undoes_a_turn(mirror):
    cloud = rng.normal(size=(100, 2)) * [3, 1]
    turned = 2.5 * cloud @ turn(1.1, mirror).T + [4, -2]
    rotation, remains = latent.procrustes(cloud, turned)
    np.testing.assert_allclose(rotation, turn(1.1, mirror).T, atol=1e-12)
    assert remains == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-12)
    assert latent.procrustes(cloud, rng.normal(size=(100, 2)))[1] > 0.8
    assert latent.procrustes(cloud, np.zeros((100, 2)))[1] == 1


def test_neighbours_are_the_nearest(encoded, monkeypatch):
    monkeypatch.setattr(latent, "BLOCK", 64)
    distance, index = NearestNeighbors(n_neighbors=8).fit(encoded.mean).kneighbors()
    found, away = latent.neighbours(encoded.mean, 8)
    np.testing.assert_array_equal(found, index)
    np.testing.assert_allclose(away, distance)
    new = rng.normal(size=(7, 6))
    np.testing.assert_array_equal(latent.nearest(new, encoded.mean, 3)[0], cdist(new, encoded.mean).argsort(1)[:, :3])
    with pytest.raises(ValueError, match="1 to 199 neighbours, not 200"):
        latent.neighbours(encoded.mean, 200)
    with pytest.raises(ValueError, match="not 0"):
        latent.nearest(new, encoded.mean, 0)


def test_overlap():
    one, _ = latent.neighbours(rng.normal(size=(300, 5)))
    assert (latent.overlap(one, one[:, ::-1]) == 1).all()
    other, _ = latent.neighbours(rng.normal(size=(300, 5)))
    by_hand = [len(set(a) & set(b)) / 15 for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(latent.overlap(one, other), by_hand)


def test_the_predicted_label_is_the_commonest_and_of_equal_ones_the_nearest():
    labels = np.array([5, 5, 7, 7, 3])
    index = np.array([[0, 2, 3, 4], [2, 0, 3, 1], [4, 0, 1, 2]])
    assert latent.predict_labels(index, labels).tolist() == [7, 7, 5]


def test_trustworthiness_is_that_of_sklearn(encoded):
    placed = latent.pca(encoded.mean).project(encoded.mean)
    found = latent.trustworthiness(encoded.mean, placed, 10)
    assert found.value == pytest.approx(sklearn_trustworthiness(encoded.mean, placed, n_neighbors=10), abs=1e-9)
    assert latent.trustworthiness(encoded.mean, encoded.mean, 10).value == 1
    part = latent.trustworthiness(encoded.mean, placed, 10, images=50)
    assert part.n == 50 and abs(part.value - found.value) < Z * part.se
    with pytest.raises(ValueError, match="1 to 99 neighbours, not 100"):
        latent.trustworthiness(encoded.mean, placed, 100)


def test_draws_are_placed_among_their_neighbours(encoded):
    """At a point of the map they land close to it, alone or in company, and between two at their mean."""
    points = rng.normal(size=(400, 3))
    placed = 3 * points[:, :2]
    draws = rng.normal(size=(20, 3))
    together = latent.place_on_map(draws, points, placed)
    alone = np.vstack([latent.place_on_map(draw[None], points, placed) for draw in draws])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    near = latent.nearest(draws, points)[0]
    assert (together >= placed[near].min(1) - 1e-9).all() and (together <= placed[near].max(1) + 1e-9).all()
    pair = np.array([[-1.0], [1.0]])
    np.testing.assert_allclose(latent.place_on_map(np.array([[0.0]]), pair, np.array([[0.0, 2], [4, 6]])), [[2, 4]])
    far = latent.place_on_map(np.full((1, 3), 1e4), points, placed)
    assert np.isfinite(far).all()


def test_the_table_of_spread(encoded):
    lines = {line.name: line for line in spread(encoded, encoded.kl_standard)}
    assert lines["mean posterior standard deviation"].estimate.value == pytest.approx(encoded.std.mean())
    assert encoded.active.tolist() == [True] * 4 + [False] * 2
    assert lines["the same, active units only"].estimate.value == pytest.approx(encoded.std[:, :4].mean())
    assert lines["tr C, aggregated posterior"].estimate.value == pytest.approx(np.trace(encoded.covariance))
    log_det = lines["log det C, aggregated posterior"].estimate
    assert log_det.value == pytest.approx(np.linalg.slogdet(encoded.covariance)[1])
    entropy = lines["entropy of q, nats"].estimate
    assert entropy.se == pytest.approx(encoded.entropy.std(ddof=1) / np.sqrt(200)) and entropy.n == 200


def test_the_error_of_log_det_is_that_of_a_bootstrap():
    """2,000 images, 400 bootstrap samples: the s.e. of the bootstrap's own deviation is 1/√800 = 3.5% of it."""
    mean = rng.normal(size=(2000, 4))
    encoded = Encoded(mean, np.exp(0.3 * rng.normal(size=(2000, 4)) - 1))
    line = next(line for line in spread(encoded, encoded.kl_standard) if line.name.startswith("log det"))
    again = []
    for _ in range(400):
        rows = rng.integers(0, 2000, 2000)
        again.append(np.linalg.slogdet(Encoded(mean[rows], encoded.std[rows]).covariance)[1])
    assert line.estimate.se == pytest.approx(np.std(again), rel=Z * 0.035)


def test_differences_are_paired(encoded):
    wider = Encoded(encoded.mean, 1.1 * encoded.std)
    for a, b in zip(spread(encoded, encoded.kl_standard), spread(wider, wider.kl_standard), strict=True):
        found = difference(a, b)
        assert found.value == pytest.approx(b.estimate.value - a.estimate.value)
        if a.name.startswith("entropy"):  # the same for each image, so known without error
            assert found.value == pytest.approx(6 * np.log(1.1)) and found.se < 1e-12
    assert MeanEstimate.from_values(np.array([2.0])) == MeanEstimate(2.0, None, 1)


def test_draws_from_the_prior_come_down_through_the_layers():
    """One layer: N(0, I), whose mean of 20,000 draws has s.e. 0.007; two: the spread of the layer below joins."""
    flat = latent.prior(Model(ModelConfig(latent=(3,))), 20_000, seed=0)
    assert flat.shape == (20_000, 3) and np.abs(flat.mean(0)).max() < Z * 0.007
    deep = Model(ModelConfig(hidden=((8,), (8,)), latent=(5, 2)))
    assert latent.prior(deep, 10, seed=0).shape == (10, 5)
    np.testing.assert_array_equal(latent.prior(deep, 10, seed=3), latent.prior(deep, 10, seed=3))


def test_a_subset_is_sorted_and_mixes_a_sorted_set():
    chosen = latent.subset(10_000, 2_000)
    assert len(set(chosen)) == 2_000 and (np.diff(chosen) > 0).all() and abs(chosen.mean() - 5_000) < Z * 58
    assert latent.subset(300, 2_000).tolist() == list(range(300))


def test_shared_limits_hold_everything():
    clouds = [np.array([[0.0, 1], [2, 3]]), np.array([[-2.0, 2]])]
    assert latent.shared_range(clouds) == (pytest.approx([-2.16, 2.16]), pytest.approx([0.92, 3.08]))
