"""Estimators: exact gradients by finite formulas, unbiased ones by their mean within z standard errors."""

import math

import pytest
import torch

from iwae.bounds import Bound
from iwae.gradients import Estimator, draw
from iwae.kernels.bernoulli import log_likelihood
from iwae.model import Model, ModelConfig, log_standard
from tests.linear_gaussian import LinearGaussian, expectation

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TINY = ModelConfig(hidden=((8, 7), (6,)), latent=(4, 3), shape=(1, 16))
Z = 5.0  # standard errors; with up to 40 numbers a test the chance of a false alarm is below 3e-5


def off_target(seed: int = 0) -> LinearGaussian:
    """The linear-Gaussian model with an encoder that misses the posterior, so that no gradient is zero."""
    model = LinearGaussian(seed=seed)
    with torch.no_grad():
        model.shift += 0.4
        model.log_std += 0.3
    return model


def gradient(model, estimator: Estimator, x, seed: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss, _, _ = estimator(model, x, torch.Generator().manual_seed(seed))
    loss.backward()
    return {name: -weight.grad.clone() for name, weight in model.named_parameters()}


def mean_gradient(estimator: Estimator, repeats: int = 300, copies: int = 100) -> dict[str, tuple]:
    """(mean, standard error) over repeats of the gradient of the mean bound, x repeated to average inside too."""
    model, x = off_target(), X.repeat(copies, 1)
    draws = [gradient(model, estimator, x, seed) for seed in range(repeats)]
    stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
    return {name: (g.mean(0), g.std(0) / math.sqrt(repeats)) for name, g in stacked.items()}


def assert_same_mean(estimator: Estimator, reference: Estimator, names: tuple[str, ...]) -> None:
    ours, theirs = mean_gradient(estimator), mean_gradient(reference)
    for name in names:
        (a, se_a), (b, se_b) = ours[name], theirs[name]
        error = (se_a.square() + se_b.square()).sqrt() + 1e-12
        assert ((a - b).abs() < Z * error).all(), name


def test_the_iwae_gradient_is_the_weighted_sum():
    """∇L_k = Σ w̃ᵢ ∇log wᵢ (Burda et al. 2016, eq. 14), exactly, on a two-layer Bernoulli model in float64."""
    model = Model(TINY).double()
    x = torch.randint(0, 2, (5, 16), generator=torch.Generator().manual_seed(0)).double()
    ours = gradient(model, Estimator(Bound("iwae"), 7), x, seed=3)
    model.zero_grad()
    log_w = model.sample(x, noise=model.noise(7, 5, torch.Generator().manual_seed(3))).log_w
    (log_w.softmax(0).detach() * log_w).sum(0).mean().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad)


@pytest.mark.parametrize("gradient_name", ["exact", "stl", "dreg"])
@pytest.mark.parametrize("resample", [0, 2])
def test_the_logged_number_is_the_bound(gradient_name, resample):
    model = Model(TINY)
    x = torch.randint(0, 2, (5, 16), generator=torch.Generator().manual_seed(0)).float()
    estimator = Estimator(Bound("iwae"), 6, gradient_name, resample=resample)
    _, bound, sample = estimator(model, x, torch.Generator().manual_seed(3))
    with torch.no_grad():
        log_w = model.sample(x, noise=model.noise(6, 5, torch.Generator().manual_seed(3))).log_w
    torch.testing.assert_close(bound, Bound("iwae")(log_w))
    torch.testing.assert_close(sample.h[0].shape, torch.Size([6, 5, 4]))


def test_one_draw_dreg_is_stl_and_decoders_agree():
    model = Model(TINY).double()
    x = torch.randint(0, 2, (5, 16), generator=torch.Generator().manual_seed(0)).double()
    stl, dreg, exact = (gradient(model, Estimator(Bound("vae"), 3, name), x, 1) for name in ("stl", "dreg", "exact"))
    for name in stl:
        torch.testing.assert_close(stl[name], dreg[name])
        if not name.startswith("encoder"):
            torch.testing.assert_close(stl[name], exact[name])


def test_stl_and_dreg_vanish_where_q_is_the_posterior():
    """With every log-weight constant, the path gradients of the encoder are zero draw by draw, not only on average."""
    model = LinearGaussian()
    for name in ("stl", "dreg"):
        found = gradient(model, Estimator(Bound("iwae"), 5, name), X, 0)
        for encoder in model.encoder_names:
            torch.testing.assert_close(found[encoder], torch.zeros_like(found[encoder]), atol=1e-12, rtol=0)


ENCODER = LinearGaussian().encoder_names
ALL = ("weight", *ENCODER)


@pytest.mark.parametrize(
    "bound",
    [
        Bound("vae"),
        Bound("iwae"),
        Bound("power-mean", {"p": 2.0}),
        Bound("power-mean", {"p": 0.5}),
        Bound("ciwae", {"beta": 0.3}),
        Bound("miwae", {"k1": 3, "k2": 2}),
    ],
    ids=lambda b: b.title,
)
def test_dreg_is_unbiased_for_every_smooth_bound(bound):
    assert_same_mean(Estimator(bound, 6, "dreg"), Estimator(bound, 6), ALL)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 4.0])
def test_l_alpha_is_its_closed_form(alpha):
    """E_q[log p(x|h)] − α KL(q‖p(h)), both Gaussian: of 40,000 draws within 5 s.e., and its gradient exactly."""
    model, bound = off_target(), Bound("l-alpha", {"alpha": alpha})
    mean, log_std = model.encode_first(X)
    variance, noise = (2 * log_std).exp(), model.noise_std**2
    misfit = (X - mean @ model.weight.T).square().sum(1) + (variance * model.weight.square().sum(0)).sum(1)
    likelihood = -0.5 * (misfit / noise + X.shape[1] * math.log(2 * math.pi * noise))
    kl = 0.5 * (mean.square() + variance - 1 - 2 * log_std).sum(1)
    exact = likelihood - alpha * kl
    sample = model.sample(X, 40_000, generator=torch.Generator().manual_seed(0))
    values = sample.log_weights(bound.kl_weight).detach()
    assert ((bound(values) - exact).abs() < Z * values.std(0) / math.sqrt(40_000)).all()
    wanted = dict(zip(ALL, torch.autograd.grad(exact.mean(), [getattr(model, name) for name in ALL]), strict=True))
    for name in ("exact", "stl", "dreg"):
        for weight, (found, error) in mean_gradient(Estimator(bound, 2, name), repeats=100).items():
            assert ((found - wanted[weight]).abs() < Z * error + 1e-9).all(), (name, weight)


@pytest.mark.parametrize("kl_weight", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize(
    ("bound", "gradient_name", "resample"),
    [
        (Bound("iwae"), "exact", 0),
        (Bound("iwae"), "dreg", 0),
        (Bound("iwae"), "dreg", 1),
        (Bound("power-mean", {"p": 2.0}), "dreg", 0),
        (Bound("renyi", {"alpha": 0.5}), "dreg", 0),
        (Bound("ciwae", {"beta": 0.3}), "dreg", 0),
        (Bound("miwae", {"k1": 2, "k2": 1}), "dreg", 0),
        (Bound("vae"), "stl", 0),
    ],
    ids=str,
)
def test_with_any_weight_of_the_kl_the_gradient_is_that_of_the_bound(bound, gradient_name, resample, kl_weight):
    """The mean of 100 × 300 gradients against autograd through a quadrature: within 5 s.e., for every weight."""
    model, x = LinearGaussian(pixels=2, latent=1), torch.tensor([[0.5, -1.0], [1.5, 0.3]], dtype=torch.float64)
    with torch.no_grad():
        model.shift += 0.3
        model.log_std += 0.2
    wanted = torch.autograd.grad(expectation(model, x, bound, 2, kl_weight).mean(), list(model.parameters()))
    estimator, many = Estimator(bound, 2, gradient_name, resample=resample), x.repeat(300, 1)
    found = []
    for seed in range(100):
        noise = estimator.noise(model, len(many), torch.Generator().manual_seed(seed))
        loss, value, _ = estimator.with_noise(model, many, noise, kl_share=kl_weight)
        found.append(torch.cat([-g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    found, wanted = torch.stack(found), torch.cat([g.flatten() for g in wanted])
    assert ((found.mean(0) - wanted).abs() < Z * found.std(0) / 10 + 1e-9).all()
    assert (value.mean() - expectation(model, x, bound, 2, 1.0).mean()).abs() < Z * value.std() / math.sqrt(len(value))


@pytest.mark.parametrize("bound", [Bound("iwae"), Bound("median"), Bound("ciwae", {"beta": 0.3})], ids=lambda b: b.name)
@pytest.mark.parametrize("m", [1, 3])
def test_resampled_is_unbiased(bound, m):
    assert_same_mean(Estimator(bound, 6, resample=m), Estimator(bound, 6), ALL)


def test_resampled_dreg_is_unbiased():
    assert_same_mean(Estimator(Bound("iwae"), 6, "dreg", resample=1), Estimator(Bound("iwae"), 6), ALL)


def test_stl_is_unbiased_for_the_elbo_and_biased_for_iwae():
    assert_same_mean(Estimator(Bound("vae"), 6, "stl"), Estimator(Bound("vae"), 6), ALL)
    with pytest.raises(AssertionError):
        assert_same_mean(Estimator(Bound("iwae"), 6, "stl"), Estimator(Bound("iwae"), 6), ENCODER)


@pytest.mark.parametrize(
    ("bound", "k", "biased"),
    [
        (Bound("iwae"), 6, True),
        (Bound("iwae"), 1, False),
        (Bound("vae"), 6, False),
        (Bound("l-alpha", {"alpha": 2}), 6, False),
        (Bound("ciwae", {"beta": 0.5}), 6, True),
        (Bound("miwae", {"k1": 1, "k2": 6}), 6, False),
    ],
    ids=str,
)
def test_a_biased_gradient_says_so(bound, k, biased):
    assert Estimator(bound, k, "stl").biased == biased
    assert not any(Estimator(bound, k, name).biased for name in ("exact", "dreg"))


def test_piwae_trains_decoder_and_encoder_on_their_own_bounds():
    """Rainforth et al. 2018, section 4: exactly IWAE's gradient for θ and MIWAE's for φ, from the same draws."""
    model, groups = off_target(), {"k1": 3, "k2": 2}
    piwae = gradient(model, Estimator(Bound("iwae"), 6, "piwae", groups), X, 2)
    iwae = gradient(model, Estimator(Bound("iwae"), 6), X, 2)
    miwae = gradient(model, Estimator(Bound("miwae", groups), 6), X, 2)
    torch.testing.assert_close(piwae["weight"], iwae["weight"])
    for name in ENCODER:
        torch.testing.assert_close(piwae[name], miwae[name])


def test_piwae_keeps_draws_that_iwae_does_not_weigh():
    """Groups 40 nats apart, in float32 by the faster formula, against the definition in float64."""
    model = Model(ModelConfig(hidden=((30,),), latent=(6,)), seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1.6
    x = (torch.rand(20, 784, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    estimator = Estimator(Bound("iwae"), 10, "piwae", {"k1": 5, "k2": 2})
    noise = estimator.noise(model, len(x), torch.Generator().manual_seed(0))
    found = torch.autograd.grad(estimator.with_noise(model, x, noise)[0], list(model.encoder.parameters()))

    model, normal = model.double(), tuple(eps.double() for eps in noise.normal)
    h, log_qh = model.sample_posterior(x.double(), normal)
    log_w = log_likelihood(x.double(), model.logits(h[0])) + log_standard(h[0]) - log_qh
    best = log_w.view(5, 2, -1).amax(0)
    assert (best[0] - best[1]).abs().max() > 40
    loss = -Bound("miwae", {"k1": 5, "k2": 2})(log_w).mean()
    for a, b in zip(found, torch.autograd.grad(loss, list(model.encoder.parameters())), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-5 * b.abs().max().item())


def test_piwae_survives_weights_that_underflow():
    model = off_target()
    with torch.no_grad():
        model.log_std += 3  # log-weights spread over hundreds of nats
    found = gradient(model, Estimator(Bound("iwae"), 6, "piwae", {"k1": 3, "k2": 2}), X, 2)
    expected = gradient(model, Estimator(Bound("miwae", {"k1": 3, "k2": 2}), 6), X, 2)
    for name in ENCODER:
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(gradient="magic"), "exact, stl, dreg, piwae"),
        (dict(k=0), "at least 1, not 0"),
        (dict(resample=6), "k − 1 = 5, not 6"),
        (dict(bound=Bound("median"), gradient="dreg"), "second derivative"),
        (dict(bound=Bound("median"), gradient="stl"), "stl needs a bound with a second derivative"),
        (dict(gradient="piwae"), "takes k1 and k2, not none"),
        (dict(gradient="piwae", parameters={"k1": 4, "k2": 2}), "must equal k = 6, not 4·2"),
        (dict(gradient="piwae", parameters={"k1": 3, "k2": 2}, resample=1), "cannot be resampled"),
        (dict(bound=Bound("vae"), gradient="piwae", parameters={"k1": 3, "k2": 2}), "on IWAE, not on VAE"),
        (dict(bound=Bound("miwae", {"k1": 5, "k2": 2})), "MIWAE k1 = 5, k2 = 2 has 10 draws, which is not k = 6"),
    ],
)
def test_invalid_combinations_say_why(arguments, says):
    with pytest.raises(ValueError, match=says):
        Estimator(**{"bound": Bound("iwae"), "k": 6} | arguments)


def test_draws_by_weight():
    """Frequencies within 5 standard errors of the weights; a weight of zero is never drawn (false alarms: 1e-5)."""
    weights = torch.tensor([[0.1, 0.0], [0.0, 0.7], [0.6, 0.0], [0.3, 0.3], [0.0, 0.0]])  # k, batch
    n = 40_000
    chosen = draw(weights, torch.rand(weights.shape[1], n, generator=torch.Generator().manual_seed(0)))
    assert chosen.shape == (n, 2)
    share = torch.stack([(chosen == i).double().mean(0) for i in range(5)])
    error = (weights * (1 - weights) / n).sqrt()
    assert ((share - weights).abs() <= 5 * error + 1e-12).all()
