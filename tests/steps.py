"""What a step of training computes, looked at."""

from collections.abc import Callable

import torch
from torch import Tensor

from iwae.data.datasets import Dataset
from iwae.model import Model
from iwae.training.config import TrainConfig
from iwae.training.engine import StepInputs
from iwae.training.loop import Training


def gradients(training: Training) -> tuple[Tensor, ...]:
    """Of the last step, flat, for each of ``training.optimizer.weights``."""
    return training.optimizer.gradient.split([weight.numel() for weight in training.optimizer.weights])


def step_inputs(training: Training, images: int | None = None) -> StepInputs:
    """Of the first images, by default as many as a batch."""
    x = training.data.draw(training.images[: images or training.config.batch_size], training.generator)
    return StepInputs(x, training.dropout(x), training.estimator.noise(training.model, len(x), training.generator))


def check_compiled(
    config: TrainConfig, data: Dataset, device: str, change: Callable[[Model], object] = lambda model: None
) -> None:
    """The compiled gradient is the plain one, of the weights as they are, and what is not finite is seen in both.

    (Not the weights after some steps: where a gradient is zero, Adam makes of its rounding a whole step.) ``change`` is
    made to both models.
    """
    plain, compiled = (Training(config, data, device, engine=name) for name in ("plain", "compiled"))
    change(plain.model)
    change(compiled.model)
    for factor, kl_share in ((1.0, 1.0), (1.1, 0.25), (torch.nan, 1.0)):
        found = []
        for run in (plain, compiled):
            run.optimizer.flat.mul_(factor)
            run.generator.manual_seed(7)
            share = torch.tensor(kl_share, device=run.device)
            found.append(run.engine.gradient(step_inputs(run), share, run.estimator))
        (gradient, bound, non_finite), (other, other_bound, other_non_finite) = found
        assert torch.equal(non_finite, other_non_finite) and non_finite.any() == (factor != factor)
        if factor == factor:
            assert (gradient - other).norm() < 1e-4 * gradient.norm()
            torch.testing.assert_close(bound, other_bound, rtol=1e-6, atol=0)
    assert compiled.engine.programs() == {("compiled", config.k, config.batch_size)} and not plain.engine.programs()
