"""How a step of training is made. The result is the same with every engine, up to rounding::

    Training(config, engine="plain")

    plain                  by autograd, on a CPU in shares on all threads; on any device
    explicit               the same by the gradient's own formulas (CPU; tanh and Bernoulli pixels)
    planned                step after step from numbers that lie on the device: what a CUDA graph records
    cuda-graph             up to 20 steps replayed as one CUDA graph (CUDA)
    compiled               the gradient as a few kernels made by torch.compile
    compiled cuda-graph    both (CUDA)

``choose`` names the fastest for a device and a number of steps. A training calls ``Engine.step``, which calls
``Training.update`` for each step, which asks ``Engine.gradient``.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from iwae.gradients import Estimator, Noise
from iwae.kernels import gpu, threads
from iwae.kernels.finite import NonFiniteMonitor
from iwae.kernels.gpu import Compiled, Replayed
from iwae.model import Model, Sample, to_float64
from iwae.training import explicit
from iwae.training.optimizer import FlatAdamW

if TYPE_CHECKING:
    from iwae.training.loop import Training

COMPILED_STEPS = 75_000  # steps of a run from which on compiling, some 20 seconds, pays
FEW_IMAGES = 10  # are not worth a thread of their own
FEW_ROWS, EXPLICIT_FEW = 500, 300  # nor are so few draws × images; and where autograd does not hold the thread up


class Scheduled(NamedTuple):
    """The numbers of a step that follow from its place in the run. On a GPU they are tensors []."""

    learning_rate: float | Tensor
    average_share: float | Tensor  # of the new weights in their moving average
    kl_share: Any  # the same: of the KL's own weight, below 1 during a KL warm-up


class StepInputs(NamedTuple):
    """Everything random in a step."""

    x: Tensor  # the images, [batch, pixels]
    encoder_input: Tensor  # what the encoder sees of them
    noise: Noise

    def rows(self, rows: slice) -> "StepInputs":
        """Those of some of the images."""
        return StepInputs(self.x[rows], self.encoder_input[rows], self.noise.rows(rows))


class GradientAndTerms(NamedTuple):
    """Of some images."""

    gradient: Tensor  # of the mean loss, [weights]
    terms: Tensor  # the bound and the sums of the three log-densities over the draws, [4, batch]


class StepResult(NamedTuple):
    """Of a step."""

    gradient: Tensor  # of the mean loss, [weights]
    bound: Tensor  # its sum over the images, []
    non_finite: Tensor  # which of NonFiniteMonitor.TERMS are not finite


def result(gradient: Tensor, terms: Tensor) -> StepResult:
    """From what has been computed of all images of a step."""
    bound, *densities = terms
    return StepResult(gradient, to_float64(bound).sum(), NonFiniteMonitor.non_finite(*densities, bound, gradient))


class StepGradient(nn.Module):
    """The gradient of an estimator in all weights of a model, which are views of ``flat``, in this order.

    ``kl_share`` [] is a tensor, so that a program made at one step serves the others; where ``warms_up`` is False it is
    not used, and the KL has its whole weight.
    """

    def __init__(
        self,
        model: Model,
        estimator: Estimator,
        weights: Sequence[nn.Parameter],
        warms_up: bool,
        explicit: bool,
        batch_size: int,
    ):
        super().__init__()
        self.model, self.estimator, self.weights = model, estimator, weights
        self.warms_up, self.explicit, self.batch_size = warms_up, explicit, batch_size

    def parallel(self, inputs: StepInputs, kl_share: Tensor) -> GradientAndTerms:
        """In shares of the images, on all threads of a CPU."""
        k, backward, x = self.estimator.k, self.estimator.resample, inputs.x
        draws = backward + k // 3 if backward else k  # a draw costs a third of one that goes backward
        shares = _shares(x, draws, EXPLICIT_FEW if self.explicit else FEW_ROWS, self.batch_size)
        derive = self._by_formulas if self.explicit else self._by_autograd
        parts = threads.parallel_map(lambda rows: derive(inputs.rows(rows), kl_share, len(x)), shares)
        (gradient, *others), terms = zip(*parts, strict=True)
        for more in others:
            gradient += more
        return GradientAndTerms(gradient, torch.cat(terms, 1))

    def forward(self, x: Tensor, encoder_input: Tensor, noise: Noise, kl_share: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the terms of ``GradientAndTerms``."""
        loss, bound, sample = self.estimator.with_noise(self.model, x, noise, encoder_input, self._share(kl_share))
        return loss, _terms(bound, sample)

    def _share(self, kl_share: Tensor) -> float | Tensor:
        return kl_share if self.warms_up else 1.0

    def _by_autograd(self, inputs: StepInputs, kl_share: Tensor, images: int) -> GradientAndTerms:
        """The share of these images in a batch of ``images``."""
        loss, terms = self(*inputs, kl_share)
        gradient = torch.autograd.grad(loss * (len(inputs.x) / images), self.weights)
        return GradientAndTerms(parameters_to_vector(gradient), terms)

    def _by_formulas(self, inputs: StepInputs, kl_share: Tensor, images: int) -> GradientAndTerms:
        bound = self.estimator.bound
        kl_weight = self._share(kl_share) * bound.kl_weight
        found, sample = explicit.gradients(self.model, self.estimator, *inputs, kl_weight, images)
        return GradientAndTerms(
            explicit.vector(found, self.weights), _terms(bound(sample.log_weights(bound.kl_weight)), sample)
        )

    def of_weights(
        self, flat: Tensor, x: Tensor, encoder_input: Tensor, noise: Noise, kl_share: Tensor
    ) -> GradientAndTerms:
        """The gradient and the terms as a function of these weights and of nothing that is not given."""
        parts = zip(flat.detach().split([weight.numel() for weight in self.weights]), self.weights, strict=True)
        weights = [part.view_as(weight).requires_grad_() for part, weight in parts]
        names = {id(weight): name for name, weight in self.named_parameters()}
        replaced = {names[id(weight)]: new for weight, new in zip(self.weights, weights, strict=True)}
        loss, terms = functional_call(self, replaced, (x, encoder_input, noise, kl_share))
        return GradientAndTerms(parameters_to_vector(torch.autograd.grad(loss, weights)), terms)

    def whole_result(
        self, flat: Tensor, x: Tensor, encoder_input: Tensor, kl_share: Tensor, uniform: Tensor, *normal: Tensor
    ) -> StepResult:
        """The result of a step as a function of tensors, to be compiled."""
        return result(*self.of_weights(flat, x, encoder_input, Noise(normal, uniform), kl_share))


def _terms(bound: Tensor, sample: Sample) -> Tensor:
    return torch.stack([bound, *(log_p.detach().sum(0) for log_p in sample[:3])])


def _shares(x: Tensor, draws: int, few: int, batch_size: int) -> list[slice]:
    """The images of x, with so many draws each, shared among the threads of a CPU; ``few`` rows are not split.

    As those of a whole batch, so that only the last share of a shorter one has a new size: oneDNN keeps some half a MiB
    of code for every product of every size.
    """
    count = 1
    if x.device.type == "cpu":
        count = max(1, min(threads.count(), len(x) // FEW_IMAGES, draws * len(x) // few + 1))
    shares = [threads.share(number, count, max(len(x), batch_size)) for number in range(count)]
    if len(x) - shares[-1].start < FEW_IMAGES:
        shares = [threads.share(number, count, len(x)) for number in range(count)]
    return shares


class Engine:
    """``plain`` and ``explicit``: steps one by one."""

    def __init__(
        self,
        model: Model,
        optimizer: FlatAdamW,
        estimators: Sequence[Estimator],
        batch_size: int,
        warms_up: bool,
        explicit: bool = False,
    ):
        self.flat, self.batch_size = optimizer.flat, batch_size
        self.gradients = {
            estimator.k: StepGradient(model, estimator, optimizer.weights, warms_up, explicit, batch_size)
            for estimator in estimators
        }

    def step(self, training: "Training") -> int:
        """Make the next step, or several; returns how many."""
        rate, average_share, kl_share = training.scheduled(training.step)
        with threads.single_threaded(training.threads):
            now = Scheduled(rate, average_share, torch.full((), kl_share, device=self.flat.device))
            training.update(training.batch(), now, training.current_estimator())
        return 1

    def gradient(self, inputs: StepInputs, kl_share: Tensor, estimator: Estimator) -> StepResult:
        """The gradient of the mean loss, and what it came from."""
        return result(*self.gradient_and_terms(inputs, kl_share, estimator))

    def gradient_and_terms(self, inputs: StepInputs, kl_share: Tensor, estimator: Estimator) -> GradientAndTerms:
        """Those of the images given."""
        return self.gradients[estimator.k].parallel(inputs, kl_share)

    def _is_whole(self, inputs: StepInputs) -> bool:
        return len(inputs.x) == self.batch_size

    def programs(self) -> set[tuple[str, int, int]]:
        """What has been made of it so far for a GPU."""
        return set()


class Compiling(Engine):
    """``compiled``: the gradient of a whole batch as a few kernels."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.compiled: dict[int, Compiled] = {}  # by the number of draws

    def gradient(self, inputs: StepInputs, kl_share: Tensor, estimator: Estimator) -> StepResult:
        if not self._is_whole(inputs):
            return super().gradient(inputs, kl_share, estimator)
        if estimator.k not in self.compiled:
            self.compiled[estimator.k] = Compiled(self.gradients[estimator.k].whole_result)
        (x, encoder_input, noise), compiled = inputs, self.compiled[estimator.k]
        return StepResult(*compiled(self.flat, x, encoder_input, kl_share, noise.uniform, *noise.normal))

    def programs(self) -> set[tuple[str, int, int]]:
        """And ("compiled", draws, images of a batch)."""
        return super().programs() | {("compiled", k, self.batch_size) for k in self.compiled}


class Planned(Engine):
    """``planned``: the numbers of all steps of an epoch lie on the device before it begins, and nothing in a step is
    known to Python."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.epoch: int | None = None  # that the plan is of
        self.made: dict[tuple[int, int], Callable[[], None]] = {}  # by the number of draws and of steps

    def step(self, training: "Training") -> int:
        images = len(training.images)
        epoch, place = divmod(training.step, training.steps_per_epoch)
        whole = images // self.batch_size - place  # steps of this epoch that have as many images as a graph takes
        if whole <= 0:
            return super().step(training)
        if self.epoch != epoch:
            self._plan(training, epoch, place)
        steps = gpu.BURST if whole >= gpu.BURST else 1
        estimator = training.current_estimator()
        if (estimator.k, steps) not in self.made:
            self.made[estimator.k, steps] = self._make(training, lambda: self._steps(training, estimator, steps))
        self.made[estimator.k, steps]()
        return steps

    def _plan(self, training: "Training", epoch: int, place: int) -> None:
        """What a graph reads instead of Python's numbers. The tensors stay the same: a graph knows no others."""
        first, count, device = epoch * training.steps_per_epoch, training.steps_per_epoch, self.flat.device
        if self.epoch is None:
            self.place = torch.zeros(1, dtype=torch.long, device=device)  # of the next step in the epoch
            self.plan = torch.zeros(count, len(Scheduled._fields), device=device)
            self.rows = torch.arange(min(self.batch_size, len(training.images)), device=device)
        self.plan.copy_(torch.tensor([training.scheduled(first + i) for i in range(count)]))
        self.place.fill_(place)
        self.epoch = epoch

    def _steps(self, training: "Training", estimator: Estimator, steps: int) -> None:
        """So many steps from ``place`` on."""
        for _ in range(steps):
            now = Scheduled(*self.plan.index_select(0, self.place)[0].unbind())
            batch = training.order.index_select(0, self.place * self.batch_size + self.rows)
            training.update(batch, now, estimator)
            self.place += 1

    def _make(self, training: "Training", steps: Callable[[], None]) -> Callable[[], None]:
        return steps

    def programs(self) -> set[tuple[str, int, int]]:
        """And ("graph", draws, steps) for each CUDA graph."""
        recorded = {key for key, made in self.made.items() if isinstance(made, Replayed) and made.graph is not None}
        return super().programs() | {("graph", k, steps) for k, steps in recorded}


class CudaGraph(Planned):
    """``cuda-graph``: planned steps, recorded once and then replayed."""

    def _make(self, training: "Training", steps: Callable[[], None]) -> Callable[[], None]:
        return Replayed(steps, training.generator)


class CompilingCudaGraph(CudaGraph, Compiling):
    """``compiled cuda-graph``."""


ENGINES: dict[str, tuple[Callable[..., Engine], str | None]] = {  # and the only kind of device for it
    "plain": (Engine, None),
    "explicit": (partial(Engine, explicit=True), "cpu"),
    "planned": (Planned, None),
    "cuda-graph": (CudaGraph, "cuda"),
    "compiled": (Compiling, None),
    "compiled cuda-graph": (CompilingCudaGraph, "cuda"),
}


def find(name: str, device: str | torch.device, model: Model) -> Callable[..., Engine]:
    """The engine of this name. Raises ValueError for an unknown one, or one for another device or model."""
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    engine, kind = ENGINES[name]
    if kind not in (None, torch.device(device).type):
        raise ValueError(f"engine {name!r} needs the device {kind}, not {device}")
    if name == "explicit" and not explicit.applies(model):
        raise ValueError(f"engine 'explicit' has formulas for tanh and Bernoulli pixels alone, not for {model.config}")
    return engine


def choose(device: str | torch.device, steps: int, model: Model) -> str:
    """The name of the fastest engine for a run of so many steps of this model. Warns where a faster one is missing
    something."""
    if torch.device(device).type != "cuda":
        return "explicit" if explicit.applies(model) else "plain"
    if steps < COMPILED_STEPS:
        return "cuda-graph"
    if missing := gpu.missing_for_compiling():
        warnings.warn(
            f"steps on the GPU are not compiled, and take about twice as long: {missing} is missing", stacklevel=2
        )
        return "cuda-graph"
    return "compiled cuda-graph"
