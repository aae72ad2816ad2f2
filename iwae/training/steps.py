"""What a step of training computes: the gradient and the bound, and whether all of it is finite."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from iwae.gradients import Estimator, Noise
from iwae.kernels import threads
from iwae.kernels.finite import Health
from iwae.kernels.tracing import Listed
from iwae.model import Model, wide

FEW_IMAGES = 10  # that are not worth a thread of their own
FEW_ROWS, LISTED_FEW = 500, 50  # draws × images that are not; and where the thread runs a list
LISTED_ROWS = 20_000  # draws × images of a thread, above which a list would grow long

Found = tuple[Tensor, Tensor]  # gradient, flat; the bound and the sums of the three log-densities, [4, batch]


class Drawn(NamedTuple):
    """All that a step leaves to chance."""

    x: Tensor  # the images, [batch, pixels] of zeros and ones
    seen: Tensor  # what the encoder sees of them
    noise: Noise


class Examined(NamedTuple):
    """One step's."""

    gradient: Tensor  # of the mean loss, flat
    bound: Tensor  # its sum over the images
    wrong: Tensor  # which of Health.TERMS are not finite


def shares(x: Tensor, draws: int, few: int) -> list[slice]:
    """The images of x, with so many draws each, as the threads of a CPU share them; ``few`` rows are left whole."""
    count = 1
    if x.device.type == "cpu":
        count = max(1, min(threads.count(), len(x) // FEW_IMAGES, draws * len(x) // few + 1))
    return [threads.share(number, count, len(x)) for number in range(count)]


def examine(gradient: Tensor, values: Tensor) -> Examined:
    """From the bound and the sums of the three log-densities, [4, batch]."""
    bound, *densities = values
    return Examined(gradient, wide(bound).sum(), Health.wrong(*densities, bound, gradient))


class Call(nn.Module):
    """An estimator's calls on a model, and their gradients in ``weights``: all of the model's, in their order in
    ``flat``, of which they are views.

    ``kl_share`` [] is how much of its weight the KL has at this step of a KL warm-up. It is a tensor, so that a program
    made at one step serves the others; where ``warms_up`` is False it is not looked at, and the weight is whole.
    """

    def __init__(
        self, model: Model, estimator: Estimator, weights: Sequence[nn.Parameter], flat: Tensor, warms_up: bool
    ):
        super().__init__()
        self.model, self.estimator, self.weights, self.flat = model, estimator, weights, flat
        self.warms_up = warms_up
        self.listed: dict[tuple[int, int], Listed] = {}  # by images of the part and of the batch

    def gradient(self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, lasting: bool = False) -> Found:
        """The gradient of the mean loss and the values, by all threads. ``lasting``: so many images come many times
        more, and a list of what is done to them is worth making."""
        k, backward = self.estimator.k, self.estimator.resample
        draws = backward + k // 3 if backward else k  # a draw costs a third of one that goes backward
        listed = lasting and k * len(x) <= LISTED_ROWS * threads.count()
        rows = shares(x, draws, LISTED_FEW if listed else FEW_ROWS)
        parts = [(x[each], seen[each], noise.rows(each), kl_share, len(x)) for each in rows]
        work = [self._list(*part) if listed else partial(self._derive, *part) for part in parts]
        (gradient, *others), values = zip(*threads.spread(lambda function: function(), work), strict=True)
        for more in others:
            gradient += more
        return gradient, torch.cat(values, 1)

    def forward(self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor) -> Found:
        """The loss, and the values."""
        share = kl_share if self.warms_up else 1.0
        loss, bound, sample = self.estimator.at(self.model, x, noise, seen, share)
        return loss, torch.stack([bound, *(log_p.detach().sum(0) for log_p in sample[:3])])

    def _derive(self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, images: int) -> Found:
        """These images' part, of so many."""
        loss, values = self(x, seen, noise, kl_share)
        return parameters_to_vector(torch.autograd.grad(loss * (len(x) / images), self.weights)), values

    def _list(self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, images: int) -> Callable[[], Found]:
        """The same as a program, of the weights as they will be when it is run."""
        given = (self.flat, x, seen, kl_share, noise.uniform, *noise.normal)
        key = len(x), images
        if key not in self.listed:

            def function(
                flat: Tensor, x: Tensor, seen: Tensor, kl_share: Tensor, uniform: Tensor, *normal: Tensor
            ) -> Found:
                return self.of_weights(flat, x, seen, Noise(normal, uniform), kl_share, len(x) / images)

            self.listed[key] = Listed(function, *given)

        def run() -> Found:
            gradient, values = self.listed[key](*given)
            if values.isnan().any():
                return self._derive(x, seen, noise, kl_share, images)
            return gradient, values

        return run

    def of_weights(
        self, flat: Tensor, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, share: float = 1.0
    ) -> Found:
        """``share`` of the gradient, and the values, with these weights: of nothing but what is given."""
        parts = zip(flat.detach().split([weight.numel() for weight in self.weights]), self.weights, strict=True)
        weights = [part.view_as(weight).requires_grad_() for part, weight in parts]
        names = {id(weight): name for name, weight in self.named_parameters()}
        replaced = {names[id(weight)]: new for weight, new in zip(self.weights, weights, strict=True)}
        loss, values = functional_call(self, replaced, (x, seen, noise, kl_share))
        return parameters_to_vector(torch.autograd.grad(loss * share, weights)), values

    def examined(
        self, flat: Tensor, x: Tensor, seen: Tensor, kl_share: Tensor, uniform: Tensor, *normal: Tensor
    ) -> Examined:
        """All of it, in a form that can be compiled."""
        return examine(*self.of_weights(flat, x, seen, Noise(normal, uniform), kl_share))
