"""Models that pythae has saved: log w per draw is that of its own networks, and no code is unpickled."""

import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import pythae_peer
from iwae import adapters, checkpoints
from iwae.adapters import AdapterError, WrappedModel
from iwae.adapters.pythae_folder import MLP
from iwae.checkpoints import Card
from iwae.export import browser
from iwae.model import LOG_2PI, Model, ModelConfig
from iwae.training.config import TrainConfig
from tests.test_hostile_checkpoints import Harm

needs_pythae = pytest.mark.skipif(not pythae_peer.INSTALLED, reason="needs pythae: benchmarks/requirements.txt")


def images(count: int, *shape: int) -> torch.Tensor:
    return (torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def networks(kind: str, config) -> dict[str, nn.Module]:
    """pythae's own for MNIST, none for its default."""
    from pythae.models.nn.benchmarks import mnist

    if kind == "mlp":
        return {}
    name = {"conv": "Conv", "residual": "ResNet"}[kind]
    return {
        "encoder": getattr(mnist, f"Encoder_{name}_VAE_MNIST")(config),
        "decoder": getattr(mnist, f"Decoder_{name}_AE_MNIST")(config),
    }


def their_log_w(peer: nn.Module, x: torch.Tensor, h: torch.Tensor, loss: str) -> torch.Tensor:
    """log p(x, h) − log q(h|x) [k, batch] as ``get_nll`` computes it, with the constants that cancel there."""
    found = peer.encoder(x)
    mean, log_var = found.embedding, found.log_covariance
    log_q = -0.5 * (log_var + (h - mean) ** 2 / log_var.exp() + LOG_2PI).sum(-1)
    log_p = -0.5 * (h**2 + LOG_2PI).sum(-1)
    recon = peer.decoder(h.flatten(0, 1))["reconstruction"].reshape(len(h), *x.shape)
    if loss == "bce":
        log_px = -F.binary_cross_entropy(recon, x.expand_as(recon), reduction="none").flatten(2).sum(-1)
    else:
        log_px = -0.5 * ((recon - x) ** 2 + LOG_2PI).flatten(2).sum(-1)
    return log_px + log_p - log_q


@needs_pythae
@pytest.mark.parametrize(
    ("kind", "networks_", "loss"),
    [
        ("VAE", "mlp", "bce"),
        ("IWAE", "mlp", "bce"),
        ("VAE", "mlp", "mse"),
        ("IWAE", "conv", "bce"),
        ("VAE", "residual", "bce"),
        ("BetaVAE", "residual", "mse"),
    ],
)
def test_log_w_is_pythaes_own(tmp_path, kind, networks_, loss):
    from pythae import models

    config = getattr(models, f"{kind}Config")(input_dim=(1, 28, 28), latent_dim=4, reconstruction_loss=loss)
    torch.manual_seed(0)
    peer = getattr(models, kind)(config, **networks(networks_, config)).eval()
    peer.save(str(tmp_path))
    model = adapters.pythae(tmp_path)
    x, noise = images(5, 1, 28, 28).double(), torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(2)).double()
    peer, model = peer.double(), model.double()  # in float32 two sums of −550 nats in another order differ by 1e-4
    with torch.no_grad():
        found = model.sample(x, noise=(noise,))
        wanted = their_log_w(peer, x, found.h[0], loss)
    torch.testing.assert_close(found.log_w, wanted, atol=1e-5, rtol=0)
    assert isinstance(model, WrappedModel) == ((networks_, loss) != ("mlp", "bce"))
    if isinstance(model, WrappedModel):
        title = {"VAE": "VAE", "IWAE": "IWAE k = 10", "BetaVAE": "β-VAE"}[kind]
        assert model.title == f"{title} of pythae"


@needs_pythae
def test_flat_images_of_our_own_networks_are_refused_and_their_pickles_not_opened(tmp_path):
    """As benchmarks/pythae_peer.py saves them."""
    peer = pythae_peer.build(ModelConfig(hidden=((9,),), latent=(2,), shape=(4, 4)), k=3)
    peer.save(str(tmp_path))
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(Harm(tmp_path / "opened")))
    with pytest.raises(AdapterError, match=r"encoder is none of .* encoder\.pkl, which is never unpickled"):
        adapters.pythae(tmp_path)
    assert not (tmp_path / "opened").exists()


def saved(folder, latent: int = 3, shape=(1, 5, 6), **settings):
    """A folder as pythae writes it, with its default networks; without pythae."""
    pixels = shape[-1] * shape[-2] if len(shape) > 1 else shape[0]
    layers = {
        "encoder.layers.0.0": (pixels, MLP), "encoder.embedding": (MLP, latent), "encoder.log_var": (MLP, latent),
        "decoder.layers.0.0": (latent, MLP), "decoder.layers.1.0": (MLP, pixels),
    }  # fmt: skip
    torch.manual_seed(0)
    made = {name: nn.Linear(*sizes) for name, sizes in layers.items()}
    weights = {f"{name}.{kind}": w for name, layer in made.items() for kind, w in layer.state_dict().items()}
    torch.save({"model_state_dict": weights}, folder / "model.pt")
    config = {"name": "VAEConfig", "input_dim": shape, "latent_dim": latent, "reconstruction_loss": "bce"} | settings
    (folder / "model_config.json").write_text(json.dumps(config | {"uses_default_encoder": True}))
    return made


def test_default_networks_are_a_model_of_this_package(tmp_path):
    """log w by hand; it is kept in a checkpoint, and runs in the browser."""
    layers = saved(tmp_path, name="IWAEConfig", number_samples=5)
    model = adapters.pythae(tmp_path)
    assert type(model) is Model and model.nonstandard() is None
    assert model.config == ModelConfig(hidden=((512,),), latent=(3,), shape=(5, 6), activation="relu")
    x, noise = images(4, 30), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    features = layers["encoder.layers.0.0"](x).relu()
    mean, log_var = layers["encoder.embedding"](features), layers["encoder.log_var"](features)
    h = mean + (log_var / 2).exp() * noise
    logits = layers["decoder.layers.1.0"](layers["decoder.layers.0.0"](h).relu())
    log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    log_w = log_px + torch.distributions.Normal(0, 1).log_prob(h).sum(-1) - q.log_prob(h).sum(-1)
    torch.testing.assert_close(model.sample(x, noise=(noise,)).log_w, log_w, atol=1e-4, rtol=0)
    checkpoints.save(tmp_path / "kept.safetensors", model, Card(model.config, vars(TrainConfig())))
    again = checkpoints.load(tmp_path / "kept.safetensors")[0]
    assert torch.equal(again.logits(h), model.logits(h)) and len(browser.package(model)) > 50_000


def test_the_shape_of_flat_images(tmp_path):
    saved(tmp_path, shape=(16,))
    assert adapters.pythae(tmp_path).config.shape == (4, 4)
    assert adapters.pythae(tmp_path, shape=(2, 8)).config.shape == (2, 8)
    saved(tmp_path, shape=(18,))
    assert adapters.pythae(tmp_path).config.shape == (1, 18)
    with pytest.raises(AdapterError, match="images of 4×4 pixels do not have the 18 of this model"):
        adapters.pythae(tmp_path, shape=(4, 4))


def spoil(folder, **weights):
    kept = torch.load(folder / "model.pt", weights_only=True)["model_state_dict"]
    torch.save({"model_state_dict": kept | {name.replace("__", "."): value for name, value in weights.items()}},
               folder / "model.pt")  # fmt: skip


SPOILED = {
    "no folder": (lambda folder: [path.unlink() for path in folder.iterdir()], "No such file or directory"),
    "no weights": (lambda folder: (folder / "model.pt").unlink(), "model.pt cannot be read: No such file"),
    "another kind": (lambda folder: saved(folder, name="VQVAEConfig"), "describes a 'VQVAEConfig'; only VAEConfig"),
    "no loss": (lambda folder: saved(folder, reconstruction_loss="poisson"), "not a valid model_config.json"),
    "no JSON": (lambda folder: (folder / "model_config.json").write_bytes(b"\x80"), "not a valid model_config.json"),
    "colours": (lambda folder: saved(folder, shape=(3, 4, 4)), "are not grey"),
    "less than none": (
        lambda folder: (folder / "model_config.json").write_text(
            '{"name": "VAEConfig", "latent_dim": 3, "input_dim": [1, -5, 6]}'
        ),
        "input_dim [1, -5, 6] must be whole numbers above 0",
    ),
    "no size": (
        lambda folder: (folder / "model_config.json").write_text(
            '{"name": "VAEConfig", "latent_dim": 3, "input_dim": []}'
        ),
        "input_dim [] must be whole numbers above 0",
    ),
    "other sizes": (lambda folder: saved(folder, latent_dim=9), "its encoder is none of the networks"),
    "a flow": (lambda folder: spoil(folder, flow__weight=torch.ones(1)), "holds 'flow.weight', which is not part"),
    "infinite": (lambda folder: spoil(folder, encoder__log_var__bias=torch.tensor([1.0, 2, torch.inf])), "not finite"),
    "float64": (lambda folder: spoil(folder, encoder__log_var__bias=torch.ones(3).double()), "float64"),
    "damaged": (lambda folder: (folder / "model.pt").write_bytes(b"PK\x03\x04"), "damaged or holds more than tensors"),
    "no tensors": (lambda folder: torch.save([1], folder / "model.pt"), "has no tensors under 'model_state_dict'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_other_folders_are_refused_in_a_line(tmp_path, name):
    saved(tmp_path)
    SPOILED[name][0](tmp_path)
    with pytest.raises(AdapterError) as raised:
        adapters.pythae(tmp_path)
    assert SPOILED[name][1] in str(raised.value) and "\n" not in str(raised.value)


def test_weights_that_are_code_are_not_unpickled(tmp_path):
    saved(tmp_path)
    torch.save({"model_state_dict": Harm(tmp_path / "opened")}, tmp_path / "model.pt")
    with pytest.raises(AdapterError, match="damaged or holds more than tensors, and no code is unpickled"):
        adapters.pythae(tmp_path)
    assert not (tmp_path / "opened").exists()
