"""Models with convolutions: log-weights and gradients beside plain PyTorch, then every place that takes a model."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

from iwae import checkpoints, likelihoods
from iwae.bounds import Bound
from iwae.checkpoints import Card, CheckpointError
from iwae.data import datasets
from iwae.evaluation.activity import active_units, mask_units
from iwae.evaluation.metrics import evaluate
from iwae.export import browser, model_card
from iwae.gradients import Estimator
from iwae.inference import exact_posterior, occlusion
from iwae.inference.posterior import posterior
from iwae.model import PRESETS, Model, ModelConfig
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

SHAPE = (9, 6)  # an odd and an even side: 9×6 → 5×3 → 3×2
TINY = ModelConfig(((7,),), (4,), SHAPE, activation="relu", convolutions=(3, 5))
DEEP = replace(TINY, hidden=((7,), (6,)), latent=(4, 2))


def images(count: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randint(0, 2, (count, math.prod(SHAPE)), generator=torch.Generator().manual_seed(2)).to(dtype)


def lively(config: ModelConfig) -> Model:
    """Every weight and bias away from zero, in float64."""
    model = Model(config, seed=1).double()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


class Plain(nn.Module):
    """The same networks of one stochastic layer as PyTorch's own modules, with a map of biases after the last."""

    def __init__(self, model: Model):
        super().__init__()
        self.encode = nn.Sequential(
            nn.Unflatten(1, (1, *SHAPE)), nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(30, 7), nn.ReLU(),
        )  # fmt: skip
        self.mean, self.log_std = nn.Linear(7, 4), nn.Linear(7, 4)
        self.decode = nn.Sequential(
            nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 30), nn.ReLU(), nn.Unflatten(1, (5, 3, 2)),
            nn.ConvTranspose2d(5, 3, 3, 2, 1, output_padding=(0, 0)), nn.ReLU(),
            nn.ConvTranspose2d(3, 1, 3, 2, 1, output_padding=(0, 1), bias=False), nn.Flatten(),
        )  # fmt: skip
        self.bias = nn.Parameter(torch.empty(math.prod(SHAPE)))
        self.double()
        ours = dict(model.named_parameters())
        encoder, last = model.encoder[0], ours["pixel_logits.layers.0.weight"]
        pairs = [
            (self.encode, encoder.hidden),
            (self.mean, encoder.mean),
            (self.log_std, encoder.log_std),
            (self.decode[:-2], model.pixel_hidden),
        ]
        self.pairs = [pair for one, other in pairs for pair in zip(one.parameters(), other.parameters(), strict=True)]
        self.pairs += [(self.decode[-2].weight, last), (self.bias, ours["pixel_logits.bias"])]
        with torch.no_grad():
            for own, its in self.pairs:
                own.copy_(its)

    def log_w(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        features = self.encode(x)
        q = Normal(self.mean(features), self.log_std(features).exp())
        h = q.mean + q.stddev * noise
        logits = (self.decode(h.flatten(0, 1)) + self.bias).view(*noise.shape[:2], -1)
        log_p = Bernoulli(logits=logits).log_prob(x).sum(-1) + Normal(0, 1).log_prob(h).sum(-1)
        return log_p - q.log_prob(h).sum(-1)


def test_log_weights_and_their_gradients_are_those_of_plain_pytorch():
    model, x = lively(TINY), images()
    plain, noise = Plain(model), model.noise(6, 5, torch.Generator().manual_seed(1))
    found, expected = model.sample(x, noise=noise).log_w, plain.log_w(x, *noise)
    torch.testing.assert_close(found, expected)
    assert {id(ours) for _, ours in plain.pairs} == set(map(id, model.parameters())), "every weight is compared"
    theirs, ours = zip(*plain.pairs, strict=True)
    both = (torch.autograd.grad(log_w.logsumexp(0).sum(), each) for log_w, each in ((found, ours), (expected, theirs)))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["dreg", "stl"])
@pytest.mark.parametrize("config", [TINY, DEEP], ids=["one layer", "two layers"])
def test_estimators_without_the_density_s_gradient(name, config):
    """∇φ of Σ dᵢ log wᵢ along h alone, with q's own parameters held in log q, beside autograd on a detached copy."""
    model, x, k = lively(config), images(), 6
    estimator = Estimator(Bound("iwae"), k, name)
    loss, _, _ = estimator(model, x, torch.Generator().manual_seed(3))
    loss.backward()
    noise = model.noise(k, len(x), torch.Generator().manual_seed(3))
    held = Model(config, seed=None).double()
    held.load_state_dict(model.state_dict())
    h, _ = model.sample_posterior(x, noise)
    weights = model.sample(x, noise=noise).log_w.softmax(0).detach()
    log_w = sum(held.log_joint(x, h)) - held.log_q(x, h)
    scale = weights.square() if name == "dreg" else weights
    encoder = list(model.encoder.parameters())
    expected = torch.autograd.grad((scale * log_w).sum() / len(x), encoder)
    for weight, gradient in zip(encoder, expected, strict=True):
        torch.testing.assert_close(-weight.grad, gradient)


@pytest.mark.parametrize("name", [*likelihoods.LIKELIHOODS, "gaussian-0.5"])
@pytest.mark.parametrize("shape", [(1, 7), (13, 8), (64, 64)])
def test_any_shape_and_likelihood(name, shape):
    """Outputs of every likelihood in its own order, and at first those of the mean image: the weights see h = 0."""
    config = ModelConfig.parse(f"conv@{name}")
    config = replace(config, shape=shape)
    mean = torch.linspace(0.1, 0.9, config.pixels)
    model = Model(config, pixel_mean=mean, seed=2)
    likelihood = model.likelihood
    outputs = model.logits(torch.zeros(2, 3, 50))  # all biases but the last are zero, so nothing reaches the pixels
    torch.testing.assert_close(outputs, likelihood.initial_bias(mean).expand(2, 3, -1))
    mask = torch.arange(config.pixels) % 3 > 0
    x = (mean > 0.5).float().expand(4, -1)
    h1 = torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(0))
    each = likelihood.pixel_log_prob(x, model.logits(h1))
    torch.testing.assert_close(model.log_likelihood(x, h1, mask), each[..., mask].sum(-1))
    torch.testing.assert_close(model.log_likelihood(x, h1), each.sum(-1))


def test_the_preset_by_name_by_sizes_and_in_a_file(tmp_path):
    assert str(ModelConfig.parse("conv@relu@gaussian")) == "conv@gaussian@relu"
    assert ModelConfig.parse("16c,32c,100:50") == PRESETS["conv"] == ModelConfig.parse("conv")
    for text in ("8c,20:4/10:2@silu", "6c,5:3"):
        assert str(ModelConfig.parse(text)) == text
    for text, says in (
        ("8c:5", "nor sizes"),
        ("20,8c:5", "nor sizes"),
        ("0c,8:5", "1 to 512"),
        ("1c," * 7 + "8:5", "6"),
    ):
        with pytest.raises(ValueError, match=says):
            ModelConfig.parse(text)
    first, again = Model(DEEP, seed=3), Model(DEEP, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    bound = math.sqrt(6 / (9 * (3 + 5)))  # Glorot's, of the second convolution
    assert 0.8 * bound < first.encoder[0].hidden[0].layers[2].weight.abs().max() <= bound
    path = tmp_path / "conv.safetensors"
    checkpoints.save(path, first, Card(DEEP, {}))
    model, card = checkpoints.load(path)
    assert card.model == DEEP
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in first.state_dict().items())
    with pytest.raises(CheckpointError, match="do not fit"):
        checkpoints.save(path, first, Card(replace(DEEP, convolutions=(3, 6)), {}))


def test_posterior_exact_grid_occlusion_and_pruning_of_a_plane():
    """All agree on log p(x) of a model whose two units can be integrated."""
    model, x = lively(replace(TINY, latent=(2,))).float(), images(1, torch.float32)
    drawn = posterior(model, x, samples=4000)
    plane = exact_posterior.plane(model, drawn)
    assert abs(drawn.log_p - plane.log_p) < 5 * math.sqrt(1 / drawn.ess)
    pixel_mask = torch.arange(54) < 30
    hidden = occlusion.occluded(model, x, pixel_mask, samples=1000)
    side = torch.linspace(-8, 8, 161)
    h = torch.cartesian_prod(side, side).unsqueeze(1)
    with torch.no_grad():
        log_p = model.likelihood.pixel_log_prob(x, model.logits(h))[..., pixel_mask].sum(-1)[:, 0]
    exact = (log_p.double() - h[:, 0].square().sum(-1).double() / 2).logsumexp(0) + 2 * math.log(16 / 160)
    assert abs(hidden.log_p - (exact - math.log(2 * math.pi)).item()) < 0.05
    x = images(40, torch.float32)
    layers = active_units(model, x)
    masks = mask_units(layers, [torch.tensor([True, False])], "cpu")
    sample = model.sample(x, k=3, generator=torch.Generator().manual_seed(0), unit_masks=masks)
    assert (sample.h[0][..., 1] == 0).all()
    torch.testing.assert_close(sample.log_ph, Normal(0, 1).log_prob(sample.h[0][..., 0]))


def test_training_evaluation_and_the_card(tmp_path):
    """A short run lowers the NLL of the test images; the card says what it is."""
    data = datasets.load("digits")
    config = TrainConfig("digits", "4c,16:5", "iwae", k=3, epochs=6, seed=1, learning_rate=1e-2)
    training = Training(config, data)
    assert training.engine_name == "plain"
    before = evaluate(training.model, data.x("test", True)[:50], samples=20).nll.mean()
    list(training.run())
    after = evaluate(training.kept_model(), data.x("test", True)[:50], samples=20).nll.mean()
    assert after < before - 20
    path = tmp_path / "conv.safetensors"
    checkpoints.save(path, training.kept_model(), training.card())
    text = model_card.text(checkpoints.read_card(path), "conv", path.name)
    assert "4×14×14 tanh (3×3 convolution, stride 2) → 16 tanh → h1 (5, Gaussian)" in text


def test_the_browser_s_copy_is_refused_with_the_reason():
    with pytest.raises(browser.BrowserError, match="it has convolutions"):
        browser.package(Model(TINY))


def test_draws_do_not_depend_on_how_many_go_through_the_network_together(monkeypatch):
    model, x = lively(TINY).float(), images(7, torch.float32)
    whole = evaluate(model, x, samples=120)
    monkeypatch.setattr("iwae.evaluation.sampling.NUMBERS", 20_000)
    torch.testing.assert_close(evaluate(model, x, samples=120).nll, whole.nll, rtol=1e-5, atol=0)
