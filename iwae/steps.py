"""What a step of training computes: the gradient and the bound, and whether all of it is finite."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from iwae import threads
from iwae.gradients import Chosen, Estimator, Noise, Weights, shares
from iwae.health import Health
from iwae.model import Model, Sample, wide
from iwae.programs import Listed

LISTED_ROWS = 500  # draws × images of a thread, up to which a list of plain operations is the fastest
LISTED_FEW = 50  # and those that are not worth a thread of their own

Found = tuple[Tensor, Tensor]  # gradient, flat; the bound and the sums of the three log-densities, [4, batch]


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
    """An estimator's calls on a model, and their gradients in ``weights``: all of the model's, in their order in
    ``flat``, of which they are views."""

    def __init__(self, model: Model, estimator: Estimator, weights: Sequence[nn.Parameter], flat: Tensor):
        super().__init__()
        self.model, self.estimator, self.weights, self.flat = model, estimator, weights, flat
        self.listed: dict[tuple[int, int, int], Listed] = {}  # by draws, and images of the part and of the batch

    def gradient(self, x: Tensor, seen: Tensor, noise: Noise, lasting: bool = False) -> Found:
        """The gradient of the mean loss and the values, by all threads. ``lasting``: so many images come many times
        more, and a list of what is done to them is worth making."""
        chosen, drawn = self.estimator.choose(self.model, x, seen, noise)
        draws = len(chosen.normal[0])
        rows = shares(x, draws, LISTED_FEW)
        listed = lasting and draws * len(x[rows[-1]]) <= LISTED_ROWS
        if not listed:
            rows = shares(x, draws)
        parts = [(x[each], seen[each], chosen.rows(each), len(x)) for each in rows]
        work = [self._list(*part) if listed else partial(self._derive, *part) for part in parts]
        (gradient, *others), values = zip(*threads.spread(lambda function: function(), work), strict=True)
        for more in others:
            gradient += more
        return gradient, torch.cat(values, 1) if drawn is None else self._values(drawn)

    def forward(self, x: Tensor, seen: Tensor, given: Noise | Chosen) -> Found:
        """The loss, and the values of all draws; none, [4, 0], where only some of them are given."""
        drawn = None
        if isinstance(given, Noise):
            given, drawn = self.estimator.choose(self.model, x, seen, given)
        loss, sample = self.estimator.backward(self.model, x, seen, given)
        if drawn is None and given.weights:
            return loss, loss.new_empty(4, 0)
        return loss, self._values(drawn or sample)

    def _values(self, sample: Sample) -> Tensor:
        bound = self.estimator.bound(sample.log_w.detach())
        return torch.stack([bound, *(log_p.detach().sum(0) for log_p in sample[:3])])

    def _derive(self, x: Tensor, seen: Tensor, chosen: Chosen, images: int) -> Found:
        """These images' part, of so many."""
        loss, values = self(x, seen, chosen)
        return parameters_to_vector(torch.autograd.grad(loss * (len(x) / images), self.weights)), values

    def _list(self, x: Tensor, seen: Tensor, chosen: Chosen, images: int) -> Callable[[], Found]:
        """The same as a program, of the weights as they will be when it is run."""
        layers = len(chosen.normal)
        given = (self.flat, x, seen, *chosen.normal, *(chosen.weights or ()))

        def function(flat: Tensor, x: Tensor, seen: Tensor, *rest: Tensor) -> Found:
            weights = Weights(*rest[layers:]) if rest[layers:] else None
            return self.of_weights(flat, x, seen, Chosen(rest[:layers], weights), len(x) / images)

        key = len(chosen.normal[0]), len(x), images
        if key not in self.listed:
            with self.model.plainly():
                self.listed[key] = Listed(function, *given)
        return partial(self.listed[key], *given)

    def of_weights(self, flat: Tensor, x: Tensor, seen: Tensor, given: Noise | Chosen, share: float = 1.0) -> Found:
        """``share`` of the gradient, and the values, with these weights: of nothing but what is given."""
        parts = zip(flat.detach().split([weight.numel() for weight in self.weights]), self.weights, strict=True)
        weights = [part.view_as(weight).requires_grad_() for part, weight in parts]
        names = {id(weight): name for name, weight in self.named_parameters()}
        replaced = {names[id(weight)]: new for weight, new in zip(self.weights, weights, strict=True)}
        loss, values = functional_call(self, replaced, (x, seen, given))
        return parameters_to_vector(torch.autograd.grad(loss * share, weights)), values

    def examined(self, flat: Tensor, x: Tensor, seen: Tensor, uniform: Tensor, *normal: Tensor) -> Examined:
        """All of it, in a form that can be compiled."""
        return examine(*self.of_weights(flat, x, seen, Noise(normal, uniform)))
