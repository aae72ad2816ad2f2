"""What a step of training computes: the gradient and the bound, and whether all of it is finite."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from iwae.gradients import Estimator, Noise
from iwae.health import Health
from iwae.model import Model, wide


class Examined(NamedTuple):
    """One step's."""

    gradient: Tensor  # of the mean loss, flat
    bound: Tensor  # its sum over the images
    wrong: Tensor  # which of Health.TERMS are not finite


def examine(gradient: Tensor, values: Tensor) -> Examined:
    """From the bound and the sums of the three log-densities, [4, batch]."""
    bound, *densities = values
    return Examined(gradient, wide(bound).sum(), Health.wrong(*densities, bound, gradient))


class Call(nn.Module):
    """An estimator's call on a model, and its gradient in ``weights``, which are all of the model's, in their order."""

    def __init__(self, model: Model, estimator: Estimator, weights: Sequence[nn.Parameter]):
        super().__init__()
        self.model, self.estimator, self.weights = model, estimator, weights

    def forward(self, x: Tensor, seen: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """The loss; the bound and the sums of the three log-densities, [4, batch]."""
        loss, bound, sample = self.estimator.at(self.model, x, noise, seen)
        return loss, torch.stack([bound, *(log_p.detach().sum(0) for log_p in sample[:3])])

    def gradient(self, x: Tensor, seen: Tensor, noise: Noise, images: int) -> tuple[Tensor, Tensor]:
        """These images' part, of so many, of the loss's gradient, flat; and their values [4, batch]."""
        loss, values = self(x, seen, noise)
        return parameters_to_vector(torch.autograd.grad(loss * (len(x) / images), self.weights)), values

    def of_weights(self, flat: Tensor, x: Tensor, seen: Tensor, uniform: Tensor, *normal: Tensor) -> Examined:
        """The same with these weights, and noise, in a form that can be compiled: of nothing but what is given."""
        parts = zip(flat.detach().split([weight.numel() for weight in self.weights]), self.weights, strict=True)
        weights = [part.view_as(weight).requires_grad_() for part, weight in parts]
        names = {id(weight): name for name, weight in self.named_parameters()}
        given = {names[id(weight)]: new for weight, new in zip(self.weights, weights, strict=True)}
        loss, values = functional_call(self, given, (x, seen, Noise(normal, uniform)))
        return examine(parameters_to_vector(torch.autograd.grad(loss, weights)), values)
