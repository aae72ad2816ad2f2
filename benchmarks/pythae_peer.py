"""pythae's IWAE and VAE in our architecture, with its own training loop and its own estimate of the NLL.

The networks are written as its documentation asks: the encoder gives the mean and the log variance, the decoder
probabilities, so that its reconstruction loss is a binary cross-entropy of sigmoids. Needs pythae.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn

from iwae.kernels.layers import hidden_layers
from iwae.model import Model, ModelConfig

INSTALLED = importlib.util.find_spec("pythae") is not None

if INSTALLED:
    from pythae.data.datasets import BaseDataset
    from pythae.models import IWAE, VAE, IWAEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    for _name in [name for name in logging.root.manager.loggerDict if name.startswith("pythae")]:
        logging.getLogger(_name).setLevel(logging.WARNING)

    class PythaeEncoder(BaseEncoder):
        """x → mean and log variance of q(h|x)."""

        def __init__(self, config: ModelConfig):
            super().__init__()
            (hidden,), (latent,) = config.hidden, config.latent
            self.hidden = hidden_layers(config.pixels, hidden)
            self.mean = nn.Linear(hidden[-1], latent)
            self.log_variance = nn.Linear(hidden[-1], latent)

        def forward(self, x: Tensor) -> ModelOutput:
            features = self.hidden(x)
            return ModelOutput(embedding=self.mean(features), log_covariance=self.log_variance(features))

    class PythaeDecoder(BaseDecoder):
        """h → probabilities of the pixels."""

        def __init__(self, config: ModelConfig):
            super().__init__()
            (hidden,), (latent,) = config.hidden, config.latent
            self.hidden = hidden_layers(latent, hidden[::-1])
            self.logits = nn.Linear(hidden[0], config.pixels)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.logits(self.hidden(z)).sigmoid())


def build(config: ModelConfig, k: int, kind: str = "iwae") -> nn.Module:
    """pythae's IWAE with k draws, or for the kind ``vae`` its VAE."""
    sizes = {"input_dim": (config.pixels,), "latent_dim": config.latent[0], "reconstruction_loss": "bce"}
    networks = {"encoder": PythaeEncoder(config), "decoder": PythaeDecoder(config)}
    if kind == "vae":
        return VAE(VAEConfig(**sizes), **networks)
    return IWAE(IWAEConfig(number_samples=k, **sizes), **networks)


def twin(model: Model) -> nn.Module:
    """pythae's IWAE with the weights of ours: the same q(h|x) and p(x|h)."""
    peer = build(model.config, 1).to(model.device)
    encoder = model.encoder[0]
    pairs = [(peer.encoder.hidden, encoder.hidden), (peer.encoder.mean, encoder.mean)]
    pairs += [(peer.encoder.log_variance, encoder.log_std)]
    pairs += [(peer.decoder.hidden, model.pixel_hidden), (peer.decoder.logits, model.pixel_logits)]
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())
    with torch.no_grad():
        for weight in peer.encoder.log_variance.parameters():
            weight.mul_(2)  # log σ² = 2 log σ
    return peer.eval()


def nll(peer: nn.Module, x: Tensor, samples: int, batch_size: int) -> float:
    """NLL by pythae's ``get_nll``, mean over images x [n, pixels], nats; without the graph that it would build.

    What it returns is the log-likelihood, whose sign is turned here. ``samples`` must be a multiple of
    ``batch_size``, the number of draws that it makes at once.
    """
    if samples % batch_size:
        raise ValueError(f"{samples} samples are not a multiple of {batch_size} at once, and would be cut short")
    with torch.no_grad():
        return -float(peer.get_nll(x, n_samples=samples, batch_size=batch_size))


def trainer(config: ModelConfig, x: Tensor, k: int, batch: int, kind: str, device: str) -> Callable[[int], None]:
    """Its BaseTrainer on images x [n, pixels] on the CPU: a function that trains so many steps.

    The steps are epochs of ``train_step``, its real loop, over as much of the data as makes them up.
    """
    images, labels = x, torch.zeros(len(x))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        settings = BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=batch, learning_rate=1e-3, no_cuda=device == "cpu"
        )
        first = BaseDataset(images[:batch], labels[:batch])
        own = BaseTrainer(build(config, k, kind), first, training_config=settings)
        own.prepare_training()

    def work(steps: int) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            while steps > 0:
                now = min(steps, len(images) // batch)
                part = slice(0, now * batch)
                own.train_loader = own.get_train_dataloader(BaseDataset(images[part], labels[part]))
                own.train_step(epoch=1)
                own.callback_handler.on_epoch_end(own.training_config)
                steps -= now

    return work
