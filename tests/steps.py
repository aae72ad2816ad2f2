"""What a step of training does, looked at."""

import torch
from torch import Tensor, cat

from iwae.training.loop import Training


def gradients(training: Training) -> tuple[Tensor, ...]:
    """Of the last step, flat, for each of ``training.weights``."""
    gradient = cat([weights.grad for weights in training.adapted])
    return gradient.split([weight.numel() for weight in training.weights])


def check_compiled(training: Training) -> None:
    """The compiled gradient is the plain one, of the weights as they are, and what is not finite is seen in both.

    (Not the weights after some steps: where a gradient is zero, Adam makes of its rounding a whole step.)
    """
    x = training.data.draw(training.images[: training.config.batch_size], training.generator)
    compiled = {}
    for change, kl_share in ((1.0, 1.0), (1.1, 0.25), (torch.nan, 1.0)):
        training.flat.mul_(change)
        drawn = training.generator.get_state()
        found = []
        for training.compiled in (None, compiled):
            training.generator.set_state(drawn)
            noise = training.estimator.noise(training.model, len(x), training.generator)
            found.append(training._examined(x, x, noise, torch.tensor(kl_share, device=x.device), training.estimator))
        (gradient, bound, wrong), (other, other_bound, other_wrong) = found
        assert torch.equal(wrong, other_wrong) and wrong.any() == (change != change)
        if not wrong.any():
            assert (gradient - other).norm() < 1e-4 * gradient.norm()
            torch.testing.assert_close(bound, other_bound, rtol=1e-6, atol=0)
    assert list(compiled) == [training.config.k]
