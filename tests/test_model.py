"""Models: densities against torch.distributions, exact log-weights, quadrature, and the fast paths."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal

from iwae.evaluation.metrics import evaluate
from iwae.kernels import bernoulli, precision
from iwae.model import PRESETS, Model, ModelConfig, UnitMask
from tests.linear_gaussian import LinearGaussian

THREE = ModelConfig(hidden=((8, 7), (6,), (5,)), latent=(4, 3, 2), shape=(1, 16))


def binary(*shape: int, seed: int = 0, **options) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(options.get("dtype"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_published_architectures():
    """Sizes of PUBLISHED architectures: 1 layer and 2 layers of Burda et al. 2016."""
    shapes = {name: tuple(w.shape) for name, w in Model(PRESETS["2layer"]).named_parameters() if w.ndim == 2}
    assert shapes == {
        "encoder.0.hidden.0.weight": (200, 784),
        "encoder.0.hidden.2.weight": (200, 200),
        "encoder.0.mean.weight": (100, 200),
        "encoder.0.log_std.weight": (100, 200),
        "encoder.1.hidden.0.weight": (100, 100),
        "encoder.1.hidden.2.weight": (100, 100),
        "encoder.1.mean.weight": (50, 100),
        "encoder.1.log_std.weight": (50, 100),
        "decoder.0.hidden.0.weight": (100, 50),
        "decoder.0.hidden.2.weight": (100, 100),
        "decoder.0.mean.weight": (100, 100),
        "decoder.0.log_std.weight": (100, 100),
        "pixel_hidden.0.weight": (200, 100),
        "pixel_hidden.2.weight": (200, 200),
        "pixel_logits.weight": (784, 200),
    }
    assert Model(PRESETS["1layer"]).encoder[0].mean.out_features == 50
    assert Model(PRESETS["2d"]).encoder[0].mean.out_features == 2


def test_initialisation():
    mean = torch.linspace(0, 1, 784)
    model = Model(ModelConfig(), pixel_mean=mean, seed=3)
    torch.testing.assert_close(model.pixel_logits.bias.detach().sigmoid(), mean.clamp(0.001, 0.999))
    limit = math.sqrt(6 / (784 + 200))  # Glorot & Bengio 2010, eq. 16
    weight = model.encoder[0].hidden[0].weight.detach()
    assert weight.abs().max() <= limit
    assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)  # 156,800 uniform numbers
    assert not model.encoder[0].mean.bias.any()
    again = Model(ModelConfig(), pixel_mean=mean, seed=3)
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("config", [ModelConfig((((8, 7)),), (4,), (1, 16)), THREE], ids=["one layer", "three layers"])
def test_log_weights_are_the_densities(config):
    """log w = Σ log p(hᵢ₋₁|hᵢ) + log p(h_L) − Σ log q(hᵢ|hᵢ₋₁), by torch.distributions."""
    model, x = Model(config).double(), binary(5, 16, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():  # away from zero biases
            parameter.add_(torch.randn(parameter.shape, generator=generator(1)) * 0.3)
        sample = model.sample(x, 6, generator=generator())
        below, log_qh = x, 0
        for encoder, h in zip(model.encoder, sample.h, strict=True):
            mean, log_std = encoder(below)
            log_qh, below = log_qh + Normal(mean, log_std.exp()).log_prob(h).sum(-1), h
        log_ph = Normal(0.0, 1.0).log_prob(sample.h[-1]).sum(-1)
        for decoder, h, above in zip(model.decoder, sample.h, sample.h[1:], strict=False):
            mean, log_std = decoder(above)
            log_ph = log_ph + Normal(mean, log_std.exp()).log_prob(h).sum(-1)
        log_px = Bernoulli(logits=model.logits(sample.h[0])).log_prob(x).sum(-1)
    torch.testing.assert_close(sample.log_qh, log_qh)
    torch.testing.assert_close(sample.log_ph, log_ph)
    torch.testing.assert_close(sample.log_px, log_px)
    torch.testing.assert_close(sample.log_w, log_px + log_ph - log_qh)
    for first in (None, model.encode_first(x)):
        again = model.sample(x, 6, generator=generator(), encoded=first)
        assert all(torch.equal(a, b) for a, b in zip((*sample[:3], *sample.h), (*again[:3], *again.h), strict=True))
        for fixed in (False, True):
            torch.testing.assert_close(model.log_q(x, sample.h, detached=fixed, encoded=first), log_qh)


def test_the_exact_posterior_has_constant_weights():
    """Where q is the posterior, every log-weight is log p(x), with no variance at all."""
    model = LinearGaussian()
    x = torch.randn(4, 6, generator=generator(), dtype=torch.float64)
    log_w = model.sample(x, 50, generator=generator()).log_w
    torch.testing.assert_close(log_w, model.log_p(x).expand(50, 4))


def test_nll_against_quadrature():
    """One latent unit: log p(x) by Gauss–Hermite quadrature with 200 nodes against L_20000, within 4 s.e.

    20 images; the error of one L_k is sd(w)/(mean(w)√k); seed 0, false alarm 20 × 6e-5.
    """
    model, x = Model(ModelConfig(((20,),), (1,), (1, 30)), seed=5).double(), binary(20, 30, dtype=torch.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(2)) * 0.4)
        model.encoder[0].mean.weight.mul_(0.2)  # a q near the prior misses no part of the posterior
        model.encoder[0].log_std.weight.mul_(0.2)
        h = torch.from_numpy(nodes)[:, None, None]  # node, 1, latent
        log_px = bernoulli.log_likelihood(x, model.logits(h))  # node, batch
        exact = (log_px + torch.from_numpy(weights / math.sqrt(2 * math.pi)).log()[:, None]).logsumexp(0)
        metrics = evaluate(model, x, samples=20_000, prune=False)
    error = (1 / metrics.ess - 1 / 20_000).sqrt()
    assert ((-metrics.nll - exact).abs() < 4 * error).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 300.0], ids=["ordinary", "saturated"])
@pytest.mark.parametrize("pixels", [784, 30], ids=["grouped", "not a multiple of the group"])
@pytest.mark.parametrize("hidden", [(20,), (20, 16), (9, 20, 16)], ids=["one hidden layer", "two", "three"])
def test_fast_likelihood_equals_the_plain_formula(dtype, scale, pixels, hidden, monkeypatch):
    """Value and gradient in every weight and in h, to the accuracy of the numbers; several blocks of rows."""
    monkeypatch.setattr(bernoulli, "ROWS", 30)
    accuracy = {torch.float32: 1e-5, torch.float64: 1e-8}[dtype]  # of the largest; softplus is exact to e⁻²⁰ only
    x = binary(7, pixels, dtype=dtype)
    model = Model(ModelConfig((hidden,), (5,), (1, pixels)), seed=1).to(dtype)
    with torch.no_grad():
        model.pixel_logits.weight.mul_(scale)
        for parameter in model.parameters():  # away from zero biases
            parameter.add_(torch.randn(parameter.shape, generator=generator(2)) * 0.1)
    h = torch.randn(9, 7, 5, generator=generator(), dtype=dtype, requires_grad=True)
    plain, fast = bernoulli.log_likelihood(x, model.logits(h)), model.log_likelihood(x, h)
    tolerance = {"atol": accuracy * plain.abs().max().item(), "rtol": accuracy}
    torch.testing.assert_close(fast, plain, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(model.log_likelihood(x, h), plain, **tolerance)
    chosen = torch.randn(plain.shape, generator=generator(1), dtype=dtype)
    wanted = (h, *model.pixel_hidden.parameters(), *model.pixel_logits.parameters())
    for a, b in zip(
        torch.autograd.grad((fast * chosen).sum(), wanted),
        torch.autograd.grad((plain * chosen).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=accuracy * b.abs().max().item(), rtol=10 * accuracy)


def test_a_second_backward_pass_gives_the_same():
    model, x = Model(ModelConfig(((8,),), (4,), (1, 16))), binary(3, 16, dtype=torch.float32)
    value = model.log_likelihood(x, torch.randn(2, 3, 4, generator=generator())).sum()
    once, twice = (torch.autograd.grad(value, model.pixel_logits.weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)


def test_blocks_do_not_change_the_answer(monkeypatch):
    model, x = Model(ModelConfig()), binary(30, 784, dtype=torch.float32)
    h = torch.randn(40, 30, 50, generator=generator())
    with torch.no_grad():
        whole = model.log_likelihood(x, h)
        monkeypatch.setattr(bernoulli, "ROWS", 64)
        torch.testing.assert_close(model.log_likelihood(x, h), whole, rtol=1e-6, atol=1e-3)


def test_dropped_units_leave_both_densities():
    """With a unit dropped, the model is the smaller one: same log-weights as a model built without it."""
    big = Model(ModelConfig(((8,),), (4,), (1, 16))).double()
    small = Model(ModelConfig(((8,),), (3,), (1, 16)), seed=None).double()
    with torch.no_grad():
        state = big.state_dict()
        for name in ("encoder.0.mean", "encoder.0.log_std"):
            state[f"{name}.weight"], state[f"{name}.bias"] = state[f"{name}.weight"][:3], state[f"{name}.bias"][:3]
        state["pixel_hidden.0.weight"] = state["pixel_hidden.0.weight"][:, :3]  # the unit is held at zero
        small.load_state_dict(state)
        x, noise = binary(5, 16, dtype=torch.float64), big.noise(6, 5, generator())
        unit_masks = (UnitMask(torch.tensor([1.0, 1, 1, 0]).double(), torch.zeros(4).double()),)
        dropped = big.sample(x, noise=noise, unit_masks=unit_masks)
        torch.testing.assert_close(dropped.log_w, small.sample(x, noise=(noise[0][..., :3],)).log_w)
        assert not dropped.h[0][..., 3].any()


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("2layer", PRESETS["2layer"]),
        ("200,200:100/100,100:50", PRESETS["2layer"]),
        ("30:7", ModelConfig(((30,),), (7,))),
    ],
)
def test_model_names(text, config):
    assert ModelConfig.parse(text) == config
    assert ModelConfig.parse(str(config)) == config


@pytest.mark.parametrize("text", ["3layer", "200", "200:50/", "200:-1", "a,b:c", "", "200:50:50", "1e3:5"])
def test_bad_model_names_say_what_is_allowed(text):
    with pytest.raises(ValueError, match="1layer, 2layer, 2d, conv nor sizes like"):
        ModelConfig.parse(text)


@pytest.mark.parametrize("text", ["0:5", "200000:5", "5:0"])
def test_bad_sizes_say_what_is_allowed(text):
    with pytest.raises(ValueError, match="from 1 to 100,000"):
        ModelConfig.parse(text)


@pytest.mark.parametrize("weights", ["of some draws", "of none", "not a number"])
def test_draws_that_do_not_count_are_left_out_of_the_way_back(weights, monkeypatch):
    """The gradient is that of all draws up to rounding, and what is no number comes out as such."""
    monkeypatch.setattr(precision, "by_onednn", lambda kind: False)
    monkeypatch.setattr(bernoulli, "ROWS", 6)  # three draws of two images
    model, found = Model(PRESETS["1layer"], seed=1), []
    tensors = [weight.detach() for weight in [*model.pixel_hidden.parameters(), *model.pixel_logits.parameters()]]
    x, h = binary(2, 784).float(), torch.randn(7, 2, 50, generator=generator())
    c = torch.rand(7, 2, generator=generator())
    c[::2, 0], c[4] = 1e-9, 1e-12
    c = {"of some draws": c, "of none": torch.zeros(7, 2), "not a number": c.where(c != c[4, 1], torch.nan)}[weights]
    for matters in (None, c):
        kept: bernoulli.Blocks = []
        bernoulli.forward(x, h, tensors, kept)
        g_h, g_weights = bernoulli.backward(h, tensors[0::2], kept, c, matters=matters)
        found.append((g_h, *g_weights))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    if weights == "of some draws":
        assert found[1][0][2, 0].abs().max() == 0 < found[0][0][2, 0].abs().max()


def test_a_draw_of_negligible_weight_has_no_gradient():
    """Weights of e⁻⁹⁰ would make denormal numbers, with which the products of a CPU take four times as long."""
    model = Model(PRESETS["1layer"], seed=1)
    x, h = binary(2, 784).float(), torch.randn(3, 2, 50, generator=generator(), requires_grad=True)
    weights = torch.tensor([[1.0, 0.4], [1e-4, 1e-42], [1e-30, 0.6]])
    model.log_likelihood(x, h).backward(weights)
    fast = [h.grad, *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)]
    h.grad = None
    model.zero_grad()
    bernoulli.log_likelihood(x, model.logits(h)).backward(weights)
    plain = [h.grad, *(weight.grad for weight in model.parameters() if weight.grad is not None)]
    assert fast[0][1, 1].abs().max() == 0 == fast[0][2, 0].abs().max() and plain[0][2, 0].abs().max() > 0
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
