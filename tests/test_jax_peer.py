"""JAX's side of the benchmarks computes what ours does: the same weights and noise give the same bound and gradient."""

import numpy as np
import pytest
import torch

pytest.importorskip("jax", reason="needs jax: benchmarks/requirements.txt")
pytest.importorskip("optax", reason="needs optax: benchmarks/requirements.txt")

from benchmarks import jax_peer
from iwae import catalog, checkpoints
from iwae.bounds import Bound
from iwae.data import datasets
from iwae.evaluation import metrics, stats
from iwae.gradients import Estimator, Noise
from iwae.model import Model, ModelConfig

CONFIG = ModelConfig.parse("9,8:4")
K, BATCH = 5, 6


@pytest.fixture(scope="module")
def given():
    """A model, images and the randomness of one step."""
    generator = torch.Generator().manual_seed(3)
    model = Model(CONFIG, seed=1)
    x = (torch.rand(BATCH, CONFIG.pixels, generator=generator) < 0.2).float()
    return model, x, Noise(model.noise(K, BATCH, generator), torch.rand(BATCH, 1, generator=generator))


def gradients(model: Model) -> dict[str, list[np.ndarray]]:
    """Of each network's layers, weight [in, out] and bias, as ``params_of`` lays out the weights."""
    encoder = model.encoder[0]
    networks = {
        "encoder": [*encoder.hidden[0::2], encoder.mean, encoder.log_std],
        "decoder": [*model.pixel_hidden[0::2], model.pixel_logits],
    }
    return {
        name: [each for layer in layers for each in (layer.weight.grad.numpy().T, layer.bias.grad.numpy())]
        for name, layers in networks.items()
    }


@pytest.mark.parametrize("resample", [0, 1])
def test_the_gradient_is_ours(given, resample):
    import jax

    model, x, noise = given
    model.zero_grad()
    estimator = Estimator(Bound("iwae"), K, gradient="dreg" if resample else "exact", resample=resample)
    loss, bound, _ = estimator.with_noise(model, x, noise if resample else Noise(noise.normal, torch.empty(BATCH, 0)))
    loss.backward()
    params, normal = jax_peer.params_of(model), noise.normal[0].numpy()
    rest = (noise.uniform[:, 0].numpy(),) if resample else ()
    own_loss = jax_peer.resampled_loss if resample else jax_peer.loss
    value, found = jax.value_and_grad(own_loss)(params, x.numpy(), normal, *rest)
    if not resample:
        assert float(value) == pytest.approx(-bound.mean().item(), rel=1e-5)
    for name, expected in gradients(model).items():
        theirs = [np.asarray(each) for layer in found[name] for each in layer]
        for own, other in zip(expected, theirs, strict=True):
            np.testing.assert_allclose(other, own, rtol=2e-3, atol=2e-5)


def test_the_nll_is_ours_within_its_noise():
    """Of a trained model, whose estimates have a noise of a tenth of a nat an image; 4 standard errors."""
    model, _ = checkpoints.load(catalog.SHIPPED / "digits-small-iwae-k50.safetensors")
    x = datasets.load("digits").binary("test")[:50]
    theirs = torch.from_numpy(np.array(jax_peer.estimator(model, x.numpy(), 1000, 50)(1)))
    gap, se = stats.mean_se(theirs + metrics.mean_bound(model, x, Bound("iwae"), 1000))
    assert abs(gap) < 4 * se and se < 0.1


def test_training_lowers_the_loss():
    """Of 60 steps on one batch, by either estimator, from the same start."""
    x = np.tile(np.eye(4, 784, dtype=np.float32), (5, 1))
    for resample in (False, True):
        run = jax_peer.trainer(ModelConfig.parse("9,8:4"), x, K, 20, resample, 20)
        losses = [float(run(1)[0]), float(run(2)[-1])]
        assert losses[1] < losses[0] - 20, losses
