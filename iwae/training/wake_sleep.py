"""The sleep phase: an encoder is refitted to images that its model generates, each with the h that it came from.

An encoder trained on the same images for hundreds of epochs fits them better than new ones, whose log-weights vary more
than they need to. The model generates images without end: the mean of log q(h|x) over (x, h) ~ p(x, h), as a function
of the encoder, is largest where the mean of D_KL(p(h|x) ‖ q(h|x)) is smallest. Hinton, Dayan, Frey & Neal 1995
(wake-sleep). The decoder, and with it log p(x), stays unchanged. What changes is how close an estimate of log p(x)
comes with a given number of draws, and q itself, which covers the whole posterior and is wider for it.
"""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from iwae.analysis import generation
from iwae.evaluation.sampling import Progress
from iwae.model import Model
from iwae.training.config import MAX_SEED, SCHEDULES

DECAY = 0.999  # of the averaged weights


@torch.no_grad()
def dream(model: Model, count: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``count`` pairs (x, h) from p(x, h): x [count, pixels], h[l] [count, latent[l]]."""
    h = generation.sample_prior(model, count, generator)
    return model.likelihood.sample(model.logits(h[0]), generator), h


@dataclass(frozen=True)
class Refit:
    """Settings of the sleep phase. Raises ValueError for values that are not allowed."""

    images: int = 600_000  # that the model generates, each used once
    batch_size: int = 200  # images per step
    learning_rate: float = 5e-4  # the largest one of Adam; it falls to 1% along half a cosine
    seed: int = 0  # of the images

    def __post_init__(self) -> None:
        for name in ("images", "batch_size"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name.replace('_', ' ')} must be a whole number of at least 1, not {value}")
        if not (isinstance(self.learning_rate, int | float) and 0 < self.learning_rate < math.inf):
            raise ValueError(f"learning rate must be above 0, not {self.learning_rate}")
        if not (isinstance(self.seed, int) and 0 <= self.seed <= MAX_SEED):
            raise ValueError(f"seed must lie between 0 and {MAX_SEED}, not {self.seed}")

    @classmethod
    def from_progress(cls, progress: dict[str, Any]) -> "list[Refit]":
        """The refits recorded in a card's progress, in order. Raises ValueError for anything that is not one."""
        try:
            return [cls(**settings) for settings in progress.get("refits", [])]
        except TypeError:
            raise ValueError(f"its refits have other settings than {', '.join(asdict(cls()))}") from None

    def __call__(self, model: Model, progress: Progress | None = None) -> Model:
        """A copy of the model with its encoder refitted: the moving average of the weights, over some thousand steps.
        Raises ValueError where they are no longer finite."""
        model = copy.deepcopy(model)
        weights = list(model.encoder.parameters())
        average = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        generator = torch.Generator(model.device).manual_seed(self.seed)
        steps = math.ceil(self.images / self.batch_size)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * SCHEDULES["cosine"].function(step / steps)
            done = step * self.batch_size
            count = min(self.batch_size, self.images - done)
            loss = -model.log_q(*dream(model, count, generator)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            share = 1 - min(DECAY, (2 + step) / (11 + step))
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                average, [weight.detach() for weight in weights], share
            )
            if progress:
                progress(done + count, self.images)
        if not all(weight.isfinite().all() for weight in average):
            raise ValueError(f"the encoder is no longer finite: a learning rate below {self.learning_rate:g} may help")
        with torch.no_grad():
            for weight, mean in zip(weights, average, strict=True):
                weight.copy_(mean)
        return model
