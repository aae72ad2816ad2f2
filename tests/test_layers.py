"""Your own modules in a model: the plain formula is used, gradients are right, and no checkpoint pretends otherwise."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from iwae import checkpoints
from iwae.checkpoints import Card, CheckpointError
from iwae.evaluation.metrics import evaluate
from iwae.kernels import bernoulli, precision
from iwae.kernels.layers import Tanh, as_function
from iwae.model import Model, ModelConfig

CONFIG = ModelConfig(hidden=((20, 16), (8,)), latent=(5, 3), shape=(1, 16))


class ConvEncoder(nn.Module):
    """[..., 16] → a Gaussian of 5 units."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x):
        features = self.conv(x.reshape(-1, 1, 4, 4)).relu().flatten(1)
        return self.out(features).view(*x.shape[:-1], 10).chunk(2, -1)


class Louder(Model):
    def logits(self, h1):
        return 2 * super().logits(h1)


def relu(model):
    model.pixel_hidden[1] = nn.ReLU()


def ours_without_a_tanh(model):
    model.pixel_hidden = nn.Sequential(*[layer for layer in model.pixel_hidden if not isinstance(layer, Tanh)])


def residual(model):
    class Residual(precision.Linear):
        def forward(self, below):
            return super().forward(below) + below.mean(-1, keepdim=True)

    model.pixel_hidden[2] = Residual(16, 20)


def no_bias(model):
    model.pixel_logits = precision.Linear(20, 16, bias=False)


def extra_norm(model):
    model.pixel_hidden = nn.Sequential(*model.pixel_hidden, nn.LayerNorm(20))


def another_output(model):
    model.pixel_logits = nn.Sequential(nn.Linear(20, 30), nn.SELU(), nn.Linear(30, 16))


def hooked(model):
    model.pixel_hidden[3].register_forward_hook(lambda module, given, found: 0.5 * found)


def own_forward(model):
    model.pixel_hidden[1].forward = torch.sin


def pruned(model):
    prune.l1_unstructured(model.pixel_logits, "weight", amount=0.5)


def spectral(model):
    parametrizations.spectral_norm(model.pixel_hidden[0])


def torchs_own(model):
    model.pixel_hidden[1] = nn.Tanh()


def half(model):
    model.to(torch.bfloat16)


DECODERS = [
    *(relu, ours_without_a_tanh, residual, no_bias, extra_norm, another_output, hooked, own_forward, pruned, spectral),
    *(torchs_own, half),
]


def changed(change) -> Model:
    model = Model(CONFIG, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    change(model)
    return model.eval()  # in training, spectral_norm changes at every call


def images(n: int = 4) -> torch.Tensor:
    return torch.randint(0, 2, (n, 16), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("change", DECODERS, ids=lambda change: change.__name__)
def test_a_decoder_of_other_layers_has_the_plain_likelihood(change, monkeypatch):
    """Value and gradients, with and without hidden pixels; the fast way is not taken."""
    model, x = changed(change), images()
    monkeypatch.setattr(bernoulli, "fused_log_likelihood", None)
    like = next(model.parameters())
    h = torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(2), dtype=like.dtype, requires_grad=True)
    logits, x_like = model.logits(h), x.to(like.dtype)
    plain = (x_like * logits - nn.functional.softplus(logits)).sum(-1)
    found = model.log_likelihood(x, h)
    assert torch.equal(found, plain)
    wanted = [h, *(weight for weight in model.pixel_hidden.parameters() if weight.requires_grad)]
    for a, b in zip(torch.autograd.grad(found.sum(), wanted), torch.autograd.grad(plain.sum(), wanted), strict=True):
        assert torch.equal(a, b)
    visible = torch.arange(16) < 9
    part = (x_like * logits - nn.functional.softplus(logits))[..., :9].sum(-1)
    torch.testing.assert_close(model.log_likelihood(x, h, visible), part, rtol=2e-2 if change is half else 1e-5, atol=0)


def test_a_model_that_overrides_logits_has_the_plain_likelihood_of_them():
    model, x, h = Louder(CONFIG, seed=3), images(), torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model.log_likelihood(x, h), bernoulli.log_likelihood(x, 2 * Model.logits(model, h)))
    one = Model(CONFIG, seed=3)
    one.logits = lambda h1: torch.zeros(*h1.shape[:-1], 16)
    torch.testing.assert_close(one.log_likelihood(x, h), torch.full((2, 4), -16 * torch.tensor(2.0).log()))


def test_the_package_s_own_layers_take_the_fast_way(monkeypatch):
    monkeypatch.setattr(bernoulli, "log_likelihood", None)
    assert Model(CONFIG).log_likelihood(images(), torch.zeros(2, 4, 5)).shape == (2, 4)


def conv(model):
    model.encoder[0] = ConvEncoder()


def test_a_convolutional_encoder_is_evaluated():
    """The NLL from its own q, by hand: log w from torch's own densities and the same noise."""
    model, x = changed(conv), images()
    found = evaluate(model, x, samples=30, prune=False)
    noise = model.noise(50, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        sample = model.sample(x, noise=tuple(eps[:30] for eps in noise))
        mean, log_std = model.encoder[0](x)
        above = model.encoder[1](sample.h[0])
        log_q = torch.distributions.Normal(mean, log_std.exp()).log_prob(sample.h[0]).sum(-1)
        log_q = log_q + torch.distributions.Normal(above[0], above[1].exp()).log_prob(sample.h[1]).sum(-1)
        log_p = bernoulli.log_likelihood(x, model.logits(sample.h[0])) + sample.log_ph
    torch.testing.assert_close(sample.log_qh, log_q)
    torch.testing.assert_close(-found.nll.float(), (log_p - log_q).logsumexp(0) - torch.tensor(30.0).log())


class Wrapped(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, below):
        return self.layer(below)


def test_log_q_as_a_function_of_h_alone_for_any_encoder():
    """DReG and STL need it: the same value and gradient in h as the full log q, and none in the encoder's weights."""
    model, x = changed(lambda model: None), images()
    other = copy.deepcopy(model)
    other.encoder[1] = Wrapped(other.encoder[1])
    norm = copy.deepcopy(model)
    norm.encoder[1].hidden.append(nn.Identity())
    h = [torch.randn(3, 4, size, generator=torch.Generator().manual_seed(size), requires_grad=True) for size in (5, 3)]
    expected = torch.autograd.grad(model.log_q(x, h, detached=True).sum(), h)
    for one in (other, norm):
        torch.testing.assert_close(one.log_q(x, h, detached=True), model.log_q(x, h))
        for a, b in zip(torch.autograd.grad(one.log_q(x, h, detached=True).sum(), h), expected, strict=True):
            torch.testing.assert_close(a, b)
        one.log_q(x, h, detached=True).sum().backward()
        assert all(weight.grad is None for weight in one.encoder.parameters())


def test_a_function_of_the_input_alone_with_an_output_that_is_constant():
    class Fixed(nn.Module):
        def forward(self, below):
            return below.square(), torch.zeros(2)

    x = torch.tensor([1.0, 3.0], requires_grad=True)
    square, zero = as_function(Fixed(), x)
    (square.sum() + zero.sum()).backward()
    assert torch.equal(x.grad, torch.tensor([2.0, 6.0]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *((change, "'pixel_") for change in DECODERS if change is not half),
        (conv, "'encoder.0' is a ConvEncoder"),
        (lambda model: setattr(model.encoder[0], "hidden", model.pixel_hidden), "'pixel_hidden' is missing or shared"),
        (lambda model: model.add_module("more", nn.Linear(2, 2)), "'more' is one more"),
        (lambda model: model.register_buffer("steps", torch.zeros(3)), "'steps' has the shape"),
        (lambda model: model.pixel_logits.weight.data.fill_(torch.nan), "values that are not finite"),
        (lambda model: model.encoder[0].mean.bias.data.fill_(torch.inf), "values that are not finite"),
    ],
)
def test_save_refuses_what_load_could_not_read(change, says, tmp_path):
    model, path = changed(change), tmp_path / "model.safetensors"
    checkpoints.save(path, Model(CONFIG), Card(CONFIG, {}))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=says):
        checkpoints.save(path, model, Card(CONFIG, {}))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (Card(ModelConfig(), {}), "do not fit the model it describes"),
        (Card(CONFIG, {}, {"weights": "float8"}), "weights are 'float8'; there are float32, float16"),
        (Card(CONFIG, {}, {}, {"nll": float("nan")}), "nll is 'nan'"),
        (Card(CONFIG, {"path": object()}), "what JSON cannot"),
        (Card(CONFIG, {"notes": "x" * 2**20}), "its header has 1,0"),
        (Card(CONFIG, {}, {"data": "digits"}), "not an object with a hash"),
    ],
)
def test_save_refuses_a_card_that_could_not_be_read_again(card, says, tmp_path):
    with pytest.raises(CheckpointError, match=says):
        checkpoints.save(tmp_path / "model.safetensors", Model(CONFIG), card)
    assert not list(tmp_path.iterdir())


def test_tied_weights_are_saved_as_two_of_equal_values(tmp_path):
    model, path = Model(ModelConfig(hidden=((16,),), latent=(16,), shape=(1, 16))), tmp_path / "model.safetensors"
    model.pixel_logits.weight = model.pixel_hidden[0].weight
    checkpoints.save(path, model, Card(model.config, {}))
    again = checkpoints.load(path)[0]
    assert torch.equal(again.pixel_logits.weight, model.pixel_logits.weight)
    assert torch.equal(again.pixel_hidden[0].weight, model.pixel_logits.weight)


def test_a_subclass_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="the model is a Louder"):
        checkpoints.save(tmp_path / "model.safetensors", Louder(CONFIG), Card(CONFIG, {}))


@pytest.mark.parametrize("name", ["relu", "silu", "gelu"])
def test_another_activation(name, tmp_path):
    """Log-weights and their gradients equal those of plain PyTorch, and q is the same function of h when detached."""
    config = ModelConfig(((6, 5), (4,)), (3, 2), shape=(1, 16), activation=name)
    assert ModelConfig.parse("6,5:3/4:2@relu@gaussian") == ModelConfig(
        ((6, 5), (4,)), (3, 2), likelihood="gaussian", activation="relu"
    )
    assert str(ModelConfig.parse("2layer@gelu")) == "2layer@gelu"
    model = Model(config, seed=1).double()
    x = torch.rand(7, 16, generator=torch.Generator().manual_seed(0)).round().double()
    noise = model.noise(4, 7, torch.Generator().manual_seed(1))
    function = getattr(nn.functional, name)

    def through(linears, value):
        for linear in linears:
            value = function(nn.functional.linear(value, linear.weight, linear.bias))
        return value

    def gaussian(layer, value):
        features = through(layer.hidden[0::2], value)
        mean, log_std = (nn.functional.linear(features, w.weight, w.bias) for w in (layer.mean, layer.log_std))
        return torch.distributions.Normal(mean, log_std.exp())

    q1 = gaussian(model.encoder[0], x)
    h1 = q1.mean + q1.stddev * noise[0]
    q2 = gaussian(model.encoder[1], h1)
    h2 = q2.mean + q2.stddev * noise[1]
    last = model.pixel_logits
    logits = nn.functional.linear(through(model.pixel_hidden[0::2], h1), last.weight, last.bias)
    log_p = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    log_p = (
        log_p
        + gaussian(model.decoder[0], h2).log_prob(h1).sum(-1)
        + torch.distributions.Normal(0, 1).log_prob(h2).sum(-1)
    )
    expected = log_p - q1.log_prob(h1).sum(-1) - q2.log_prob(h2).sum(-1)
    found = model.sample(x, noise=noise).log_w
    torch.testing.assert_close(found, expected)
    weights = list(model.parameters())
    for ours, plain in zip(
        torch.autograd.grad(found.logsumexp(0).sum(), weights),
        torch.autograd.grad(expected.logsumexp(0).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)
    given = h1.detach().requires_grad_()
    whole, detached = (model.log_q(x, (given, h2.detach()), detached=each) for each in (False, True))
    torch.testing.assert_close(whole, detached)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), given)[0] for value in (whole, detached)))
    checkpoints.save(tmp_path / "model.safetensors", model.float(), Card(config, {}))
    assert checkpoints.load(tmp_path / "model.safetensors")[0].config == config


@pytest.mark.parametrize("text", ["1layer@tanh@relu", "1layer@gaussian@bernoulli", "1layer@swish", "1layer@"])
def test_names_that_do_not_go_together_are_refused(text):
    with pytest.raises(ValueError):
        ModelConfig.parse(text)
