"""Models from elsewhere: a wrapped pair computes what plain PyTorch does, and every measure takes it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iwae import adapters, checkpoints, likelihoods
from iwae.adapters import AdapterError
from iwae.analysis import costs, draws, generation, latent, reconstruction, units
from iwae.bounds import Bound
from iwae.checkpoints import Card, CheckpointError
from iwae.evaluation.activity import unit_means
from iwae.evaluation.metrics import evaluate
from iwae.evaluation.stats import mean_se
from iwae.gradients import Estimator
from iwae.inference import ais, occlusion
from iwae.inference.posterior import posterior, reconstruct
from iwae.model import LatentModel, Model, ModelConfig
from iwae.training.config import TrainConfig

SHAPE, PIXELS = (6, 8), 48


class ConvEncoder(nn.Module):
    def __init__(self, latent: int = 3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ELU(), nn.Dropout(0.5), nn.Flatten()
        )
        self.out = nn.Linear(4 * 3 * 4, 2 * latent)

    def forward(self, x):
        return self.out(self.features(x)).chunk(2, -1)


def conv_decoder(*last: nn.Module, latent: int = 3) -> nn.Sequential:
    up = nn.ConvTranspose2d(4, 1, 4, 2, 1)
    return nn.Sequential(nn.Linear(latent, 48), nn.ELU(), nn.Unflatten(1, (4, 3, 4)), up, *last)


class Pair(nn.Module):
    """Two outputs of two networks."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x), self.second(x)


@pytest.fixture
def conv():
    """An encoder and a decoder with convolutions, whose batch normalization has seen images."""
    torch.manual_seed(0)
    encode, decode = ConvEncoder(), conv_decoder()
    encode.train()(images(50)[:, None])
    return encode, decode


def images(count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, *SHAPE, generator=generator) < 0.4).float()


def test_log_w_and_gradients_are_those_of_plain_pytorch(conv):
    encode, decode = conv
    model = adapters.wrap(encode, decode, latent=3, shape=SHAPE, log_var=True)
    x, noise = images(5), torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(2))
    log_w = model.sample(x, noise=(noise,)).log_w
    mean, log_var = encode(x[:, None])
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    h = mean + (log_var / 2).exp() * noise
    logits = decode(h.flatten(0, 1)).reshape(7, 5, *SHAPE)
    log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((-1, -2))
    plain = log_px + torch.distributions.Normal(0, 1).log_prob(h).sum(-1) - q.log_prob(h).sum(-1)
    torch.testing.assert_close(log_w, plain, atol=1e-4, rtol=0)
    weights = [*encode.parameters(), *decode.parameters()]
    own, wanted = (torch.autograd.grad((each.logsumexp(0) - math.log(7)).mean(), weights) for each in (log_w, plain))
    for one, other in zip(own, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_an_estimator_takes_it(conv):
    """So a wrapped pair can be trained further by any objective: here the exact gradient of the IWAE bound."""
    encode, decode = conv
    model, x = adapters.wrap(encode, decode, latent=3, shape=SHAPE), images(4).flatten(1)
    weights, estimator = [*encode.parameters(), *decode.parameters()], Estimator(Bound("iwae"), 5, "exact")
    noise = estimator.noise(model, len(x), torch.Generator().manual_seed(3))
    own = torch.autograd.grad(estimator.with_noise(model, x, noise)[0], weights)
    wanted = torch.autograd.grad(-model.sample(x, noise=noise.normal).log_w.logsumexp(0).mean(), weights)
    for one, other in zip(own, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_probabilities_are_those_of_binary_cross_entropy(conv):
    """Also where a sigmoid rounds to 0 or 1, whose logarithm torch takes for −100; gradients stay finite there."""
    encode, _ = conv
    decode = conv_decoder(nn.Sigmoid())
    model = adapters.wrap(encode, decode, latent=3, shape=SHAPE, probabilities=True)
    x = images(20)
    for scale in (1.0, 60.0):
        h = scale * torch.randn(4, 20, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
        p = decode(h.flatten(0, 1)).reshape(4, 20, *SHAPE)
        wanted = -F.binary_cross_entropy(p, x.expand_as(p), reduction="none").sum((-1, -2))
        found = model.log_likelihood(x, h)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-6)
        (gradient,) = torch.autograd.grad(found.sum(), h)
        assert gradient.isfinite().all()
    assert p.max() == 1 and model.decode(h).max() == 1


@pytest.mark.parametrize("name", ["gaussian", "discretized-logistic"])
def test_a_learned_scale_is_the_decoders_own(conv, name):
    """The likelihoods bound their scales smoothly from below; what a network says is undone before."""
    encode, mean = conv
    model = adapters.wrap(encode, Pair(mean, conv_decoder()), latent=3, shape=SHAPE, likelihood=name)
    h = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    outputs = model.logits(h)
    means, scales = (part.flatten(1) for part in model.pixel_outputs.network(h))
    torch.testing.assert_close(outputs[:, :PIXELS], means)
    likelihood = likelihoods.find(name)
    if isinstance(likelihood, likelihoods.Gaussian):
        torch.testing.assert_close(likelihood.mean_and_log_std(outputs)[1], scales, atol=1e-5, rtol=1e-5)
        x = images(9).flatten(1)
        wanted = torch.distributions.Normal(means, scales.exp()).log_prob(x).sum(-1)
        torch.testing.assert_close(model.log_likelihood(x, h), wanted, atol=1e-3, rtol=1e-5)
    else:
        torch.testing.assert_close(likelihood._mean_and_rate(outputs)[1], (-scales).exp(), atol=1e-5, rtol=1e-4)
    together = nn.Sequential(nn.Linear(3, 2 * PIXELS), nn.Unflatten(1, (2, *SHAPE)))
    assert adapters.wrap(encode, together, latent=3, shape=SHAPE, likelihood=name).logits(h).shape == (9, 2 * PIXELS)


class Affine(nn.Module):
    """q of a linear-Gaussian model: a linear mean and the same standard deviation for all images."""

    def __init__(self, gain, log_std):
        super().__init__()
        self.gain, self.log_std = nn.Parameter(gain), nn.Parameter(log_std)

    def forward(self, x):
        return x @ self.gain.T, self.log_std.expand(len(x), -1)


def linear_gaussian(wider: float):
    """(model, W, true log p(x) of images): x|h ~ N(W h, 0.7²), q the posterior with ``wider`` standard deviations."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.linalg.qr(torch.randn(PIXELS, 3, generator=generator))[0] * torch.tensor([2.0, 1.0, 0.5])
    precision = 1 + weight.square().sum(0) / 0.49
    encode = Affine(weight.T / (precision[:, None] * 0.49), -0.5 * precision.log() + math.log(wider))
    decode = nn.Linear(3, PIXELS, bias=False)
    with torch.no_grad():
        decode.weight.copy_(weight)
    x = torch.randn(400, 3, generator=generator) @ weight.T + 0.7 * torch.randn(400, PIXELS, generator=generator)
    covariance = (weight @ weight.T + 0.49 * torch.eye(PIXELS)).double()
    truth = torch.distributions.MultivariateNormal(torch.zeros(PIXELS).double(), covariance).log_prob(x.double())
    return adapters.wrap(encode, decode, latent=3, shape=SHAPE, likelihood="gaussian-0.7"), x, truth


def test_the_nll_of_a_linear_gaussian_pair_is_exact():
    """With the posterior as q every log-weight is log p(x); with a wider one the NLL is within 3 standard errors."""
    model, x, truth = linear_gaussian(wider=1.0)
    log_w = model.sample(x, k=3, generator=torch.Generator().manual_seed(0)).log_w.double()
    torch.testing.assert_close(log_w, truth.expand(3, -1), atol=1e-3, rtol=0)
    model, x, truth = linear_gaussian(wider=1.2)
    difference, se = mean_se(evaluate(model, x, samples=2000, prune=False).nll + truth)
    assert se is not None and se < 0.005 and abs(difference) < 3 * se


@pytest.fixture(scope="module")
def twins():
    """A model of this package, and its two networks wrapped."""
    model = Model(ModelConfig(hidden=((9,),), latent=(2,), shape=SHAPE), seed=3)
    with torch.no_grad():
        model.encoder[0].mean.weight.mul_(3)
        model.pixel_logits.weight.mul_(3)
    decode = nn.Sequential(model.pixel_hidden, model.pixel_logits)
    return model, adapters.wrap(model.encoder[0], decode, latent=2, shape=SHAPE, title="A twin")


MEASURES = {
    "evaluate": lambda model, x: [
        value for name, value in sorted(vars(evaluate(model, x, samples=40, ks=[5])).items()) if hasattr(value, "shape")
    ],
    "posterior": lambda model, x: [(drawn := posterior(model, x[0], samples=200)).log_w, *drawn.h],
    "reconstruct": lambda model, x: list(vars(reconstruct(model, posterior(model, x[0], samples=200))).values()),
    "encode": lambda model, x: [torch.from_numpy(part) for part in vars(latent.encode(model, x)).values()],
    "prior": lambda model, x: [torch.from_numpy(latent.prior(model, 9, seed=0))],
    "unit_kl": lambda model, x: list(units.unit_kl(model, x)),
    "unit_means": lambda model, x: list(unit_means(model, x)[0]),
    "traverse": lambda model, x: [units.traverse(model, torch.zeros(2), 0, 1, [-1.0, 1.0])],
    "reconstructions": lambda model, x: list(reconstruction.reconstructions(model, x, samples=9).losses.values()),
    "samples": lambda model, x: [generation.sample_images(model, 9), generation.manifold(model, 3)],
    "interpolate": lambda model, x: [generation.interpolate(model, x[:2])],
    "draws": lambda model, x: [draws.decode(model, torch.ones(4, 2)).pictures],
    "anneal": lambda model, x: [ais.anneal(model, x[:2], chains=4, temperatures=20).log_w],
    "occluded": lambda model, x: [
        torch.tensor(occlusion.occluded(model, x[0], torch.arange(PIXELS) < 30, samples=100).log_p)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_of_a_wrapped_pair_is_that_of_the_model(twins, name):
    for own, other in zip(*(MEASURES[name](each, images(12)) for each in twins), strict=True):
        torch.testing.assert_close(own, other, atol=2e-4, rtol=2e-4)


def test_units_without_which_it_is_still_a_model(twins):
    losses = []
    for model in twins:
        x = model.check_images(images(12))
        layers = evaluate(model, x, samples=5).activity
        losses.append(units.pruning_loss(model, x, layers, units.all_but(layers, 0, 1), samples=20))
    torch.testing.assert_close(losses[0].pruned, losses[1].pruned, atol=1e-4, rtol=1e-5)


def test_what_it_costs_is_counted(twins):
    model, wrapped = twins
    sizes = max(costs.encoder(model.config), costs.decoder(model.config))
    assert wrapped.config.multiply_adds == costs.encoder(wrapped.config) == costs.decoder(wrapped.config) == sizes
    kept = PIXELS + 9 + 2 + 9  # what the linear layers and tanhs keep for their gradients
    assert kept <= wrapped.config.features <= 2 * kept
    with pytest.raises(costs.CostError, match=r"2 latent and \d+ hidden units"):
        costs.check(wrapped.config, costs.posterior(wrapped.config, 10**9), "very many draws")


def test_a_latent_model_is_what_the_measures_need(twins):
    assert all(isinstance(model, LatentModel) for model in twins)
    assert not isinstance(nn.Linear(2, 2), LatentModel)


def test_it_cannot_be_kept_in_a_checkpoint(twins, tmp_path):
    _, wrapped = twins
    card = Card(wrapped.config, vars(TrainConfig()))
    with pytest.raises(CheckpointError, match=r"its networks are those that iwae\.adapters\.wrap was given"):
        checkpoints.save(tmp_path / "x.safetensors", wrapped, card)
    assert not list(tmp_path.iterdir()) and "A twin: wrapped, 2 units, 6×8 pixels" in repr(wrapped)


@pytest.mark.parametrize(
    "images_taken", [nn.Flatten(), nn.Sequential(), nn.Flatten(0, 0)], ids=["any", "[n, pixels]", "[n, pixels] too"]
)
def test_images_have_the_shape_that_the_encoder_takes(images_taken):
    model = adapters.wrap(
        nn.Sequential(images_taken, Pair(nn.Linear(PIXELS, 2), nn.Linear(PIXELS, 2))),
        nn.Linear(2, PIXELS), latent=2, shape=SHAPE,
    )  # fmt: skip
    assert model.sample(images(4), k=2).log_w.shape == (2, 4)


def test_networks_may_change_what_they_get_in_place():
    layers = nn.Flatten(), nn.ELU(inplace=True), Pair(nn.Linear(PIXELS, 2), nn.Linear(PIXELS, 2))
    decode = nn.Sequential(nn.Threshold(0.1, 5.0, inplace=True), nn.Linear(2, PIXELS))
    model = adapters.wrap(nn.Sequential(*layers), decode, latent=2, shape=SHAPE, likelihood="gaussian-1")
    x = -images(4)
    before, h = x.clone(), torch.zeros(4, 2, requires_grad=True)
    model.log_likelihood(x, h).sum().backward()
    posterior(model, x[0], samples=20)
    assert torch.equal(x, before) and torch.equal(h, torch.zeros(4, 2)) and h.grad is not None


class Rows(nn.Module):
    """A recurrent encoder of rows: it takes [n, h, w]."""

    def __init__(self):
        super().__init__()
        self.rows, self.out = nn.GRU(8, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x):
        return self.out(self.rows(x)[0][:, -1]).chunk(2, -1)


def test_rows_of_images():
    model = adapters.wrap(Rows(), nn.Linear(2, PIXELS), latent=2, shape=SHAPE)
    assert model.encoder[0].image == SHAPE and model.sample(images(4), k=2).log_w.shape == (2, 4)


def mlp(inputs: int = PIXELS, outputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Pair(nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)))


class Odd(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.ones(1)), function

    def forward(self, x):
        return self.function(x)


def half(network: nn.Module) -> nn.Module:
    return network.double()


def two(x):
    return torch.zeros(len(x), 2)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"encode": "text"}, "encode must be a torch.nn.Module, not a str"),
        ({"decode": nn.Flatten()}, "decode has no parameters"),
        ({"encode": half(mlp())}, "is torch.float64, and weights must be float32: encode.float()"),
        ({"encode": Odd(two)}, "encode must return the pair (mean, log standard deviation), [3, 2] each, not a tensor"),
        ({"encode": Odd(lambda x: (two(x),) * 3), "log_var": True}, "(mean, log variance), [3, 2] each, not a tuple"),
        ({"encode": mlp(outputs=4)}, "not a tuple of 2: a tensor of [3, 4], a tensor of [3, 4]"),
        ({"encode": mlp(inputs=40)}, "encode takes no images of 6×8 pixels: of x [3, 1, 6, 8]"),
        ({"encode": Odd(lambda x: (two(x), two(x) / 0))},
         "the log standard deviation that encode returns is not finite: nan"),
        ({"encode": Odd(lambda x: (two(x).double(), two(x)))}, "the mean that encode returns is torch.float64"),
        ({"encode": Odd(lambda x: (F.dropout(two(x) + 1), two(x)))}, "encode gives other numbers for an image when"),
        ({"encode": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(PIXELS, track_running_stats=False), mlp())},
         "or normalizes over the batch"),
        ({"decode": nn.Linear(2, 40)},
         "decode must return [3, 48] or [3, 6, 8] or [3, 1, 6, 8] for Bernoulli logits, not a tensor of [3, 40]"),
        ({"decode": nn.Linear(3, PIXELS)}, "decode takes no h of [3, 2]: decode raises RuntimeError"),
        ({"likelihood": "gaussian"}, "decode must return two tensors of [3, 48]"),
        ({"decode": Odd(lambda h: torch.full((len(h), PIXELS), math.inf))}, "what decode returns is not finite: inf"),
        ({"decode": nn.Sequential(nn.Linear(2, PIXELS), nn.Sigmoid())}, "probabilities=True"),
        ({"probabilities": True}, "which are not probabilities"),
        ({"probabilities": True, "likelihood": "gaussian-0.5"}, "probabilities=True is for the likelihoods bernoulli"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
        ({"shape": (6, 8, 1)}, "the shape of an image is its rows and columns"),
        ({"latent": 0}, "every size must be a whole number"),
        ({"title": "a\nb"}, "a title has 1 to 40 letters"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_does_not_fit_is_said(changed, says):
    given = {"encode": mlp(), "decode": nn.Linear(2, PIXELS), "latent": 2, "shape": SHAPE} | changed
    with pytest.raises(AdapterError) as raised:
        adapters.wrap(given.pop("encode"), given.pop("decode"), **given)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_what_a_network_raises_later_is_a_sentence():
    def picky(x):
        if len(x) > 3:
            raise KeyError("at most\n3 images")
        return two(x), two(x)

    model = adapters.wrap(Odd(picky), nn.Linear(2, PIXELS), latent=2, shape=SHAPE)
    with pytest.raises(AdapterError, match=r"^encode raises KeyError: 'at most\\n3 images'$"):
        model.encode_first(torch.zeros(4, PIXELS))


def test_a_network_that_is_put_back_into_training_mode_is_refused(conv):
    encode, decode = conv
    model = adapters.wrap(encode.train(), decode, latent=3, shape=SHAPE)
    assert not encode.training and not decode.training
    encode.train()
    with pytest.raises(AdapterError, match=r"encode is in training mode, .* encode\.eval\(\)"):
        posterior(model, images(1), samples=10)
