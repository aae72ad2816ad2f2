"""What a step of training left behind."""

from torch import Tensor, cat

from iwae.training import Training


def gradients(training: Training) -> tuple[Tensor, ...]:
    """Of the last step, flat, for each of ``training.weights``."""
    gradient = cat([weights.grad for weights in training.adapted])
    return gradient.split([weight.numel() for weight in training.weights])
