"""Training: a generator of records, repeatable from its seed and resumable bit for bit::

    training = Training(TrainConfig(dataset="digits", k=50))
    for record in training.run():
        print(record)

Bounds are in nats per image, and are those of the run's own objective.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iwae import checkpoints, datasets, evaluation
from iwae.bounds import Bound
from iwae.checkpoints import Card
from iwae.gradients import GRADIENTS, Estimator
from iwae.model import Model, ModelConfig, Sample, wide

MAX_SEED = 2**32 - 1  # seeds of single passes are made from it, and must fit 64 bits
PAPER_STAGES = 8
PAPER_PASSES = (3**PAPER_STAGES - 1) // 2  # 3,280


def _paper(progress: float) -> float:
    """Stages i = 0…7 of 3ⁱ passes at 10^(−i/7), in proportion if the run is shorter. Burda et al. 2016, section 5."""
    passes = progress * PAPER_PASSES
    stage = int(math.log(2 * passes + 1, 3) + 1e-9)
    return 10 ** (-min(stage, PAPER_STAGES - 1) / (PAPER_STAGES - 1))


def _cosine(progress: float) -> float:
    """From 1 down to 1% along half a cosine. Loshchilov & Hutter 2017."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def _constant(progress: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """Step size as a share of the learning rate over the run's progress in [0, 1), and the defaults it goes with."""

    function: Callable[[float], float]
    passes: int
    learning_rate: float
    adam_eps: float


SCHEDULES = {
    "paper": Schedule(_paper, PAPER_PASSES, 1e-3, 1e-4),
    "cosine": Schedule(_cosine, 50, 1e-3, 1e-8),
    "constant": Schedule(_constant, 50, 1e-3, 1e-8),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. Raises ValueError for values that do not go together.

    None means the default of the schedule, or that the objective does not take the parameter.
    """

    dataset: str = "digits"  # see `python -m iwae data list`
    model: str = "1layer"  # 1layer, 2layer, 2d, or sizes such as 200,200:100/100,100:50
    objective: str = "iwae"  # vae, iwae, power-mean, median, l-alpha, ciwae or miwae
    k: int = 50  # draws from q(h|x) for each image
    p: float | None = None  # exponent of power-mean
    alpha: float | None = None  # α of l-alpha
    beta: float | None = None  # β of ciwae, the weight of the VAE bound
    k1: int | None = None  # draws in each group of miwae, or of piwae's encoder
    k2: int | None = None  # number of such groups, k1·k2 = k
    gradient: str = "exact"  # exact, dreg, stl or piwae
    resample: int = 0  # draws that go backward, chosen by weight; 0 for all k
    schedule: str = "cosine"  # cosine, paper or constant
    passes: int | None = None  # over the training data
    minutes: float | None = None  # stop after so many minutes of training, wherever the schedule stands
    learning_rate: float | None = None  # the largest step size of Adam
    adam_eps: float | None = None  # ε of Adam
    batch_size: int = 100  # images per step
    weight_decay: float = 0.0  # decoupled, as in AdamW
    ema: float = 0.0  # decay of the averaged weights that are kept instead of the last ones; 0 for none
    patience: int = 0  # stop after so many validations without a better bound, and keep the best; 0 for never
    validate_every: int = 1  # passes between validations
    valid_images: int = 1000  # of the validation set, at most
    log_every: int = 100  # steps between records inside a pass
    start: str | None = None  # checkpoint whose weights to go on from, under this objective
    seed: int = 0  # of the weights, the order of the images, the binarization and the draws

    def __post_init__(self) -> None:
        if self.dataset not in datasets.NAMES:
            raise ValueError(f"unknown data set {self.dataset!r}; there are {', '.join(datasets.NAMES)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}")
        for name in ("passes", "learning_rate", "adam_eps"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(SCHEDULES[self.schedule], name))
        positive = ("passes", "learning_rate", "adam_eps", "batch_size", "validate_every", "valid_images", "log_every")
        for name in positive:
            self._check(name, "must be above 0", lambda value: value > 0)
        for name in ("resample", "weight_decay", "patience", "seed"):
            self._check(name, "must not be below 0", lambda value: value >= 0)
        self._check("seed", f"must not be above {MAX_SEED:,}", lambda value: value <= MAX_SEED)
        self._check("ema", "must lie in [0, 1)", lambda value: 0 <= value < 1)
        if self.minutes is not None:
            self._check("minutes", "must be above 0", lambda value: value > 0)
        ModelConfig.parse(self.model)
        self.estimator()

    def _check(self, name: str, rule: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if not (isinstance(value, int | float) and math.isfinite(value) and holds(value)):
            raise ValueError(f"{name.replace('_', ' ')} {rule}, not {value}")

    def bound(self) -> Bound:
        """The objective with its parameters."""
        return self.estimator().bound

    def estimator(self) -> Estimator:
        """The checked combination of objective and gradient; parameters that nothing takes are a ValueError."""
        given = {name: getattr(self, name) for name in ("p", "alpha", "beta", "k1", "k2")}
        given = {name: value for name, value in given.items() if value is not None}
        takes = GRADIENTS[self.gradient].parameters if self.gradient in GRADIENTS else ()
        own = {name: given.pop(name) for name in takes if name in given}
        return Estimator(Bound(self.objective, given), self.k, self.gradient, own, self.resample)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """From JSON; names that this version does not know are a ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class Record:
    """One logged point of a run. Bounds are the run's own objective, in nats per image."""

    step: int
    passes: float  # over the training data, so far
    bound: float  # mean over the training images since the last record
    valid_bound: float | None  # on the validation images, at the end of a pass
    active_units: list[int] | None  # of each stochastic layer, on the same images
    images_per_second: float
    seconds: float  # of training so far, over all resumed parts
    learning_rate: float


class NonFiniteError(RuntimeError):
    """A value that is no longer finite: the message says at which step, batch and term. The weights are the last
    good ones."""


class Training:
    """One run: ``run()`` trains and yields records, ``state()``/``restore()`` carry it over an interruption."""

    def __init__(self, config: TrainConfig, data: datasets.Dataset | None = None, device: str | torch.device = "cpu"):
        """``data`` defaults to ``datasets.load(config.dataset)``. Raises what loading it or ``config.start`` raises."""
        self.config, self.estimator = config, config.estimator()
        self.data = data = data or datasets.load(config.dataset)
        self.device = torch.device(device)
        self.model = self._initial_model().to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.images = data.train.images.to(self.device)
        chosen = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(data.valid), generator=chosen)[: config.valid_images]
        self.valid = data.binary("valid")[order].to(self.device)
        self.steps_per_pass = math.ceil(len(self.images) / config.batch_size)
        self.total_steps = config.passes * self.steps_per_pass
        self.step, self.seconds, self.finished = 0, 0.0, False
        self.bound_sum = wide(torch.zeros((), device=self.device))  # since the last record
        self.bound_images, self.since = 0, 0.0
        self.average = self._copy() if config.ema else None
        self.best, self.best_bound, self.stale = None, -math.inf, 0
        self.valid_bound = None  # the last one
        self.order = None  # (number of the pass, its order of the images)

    def _initial_model(self) -> Model:
        wanted = ModelConfig.parse(self.config.model)
        self.history = []
        if not self.config.start:
            return Model(wanted, pixel_mean=self.data.pixel_mean, seed=self.config.seed)
        model, card = checkpoints.load(Path(self.config.start))
        if card.model != wanted:
            raise ValueError(f"{self.config.start} holds a model of sizes {card.model}, not {wanted}")
        own = {name: card.progress.get(name) for name in ("passes", "seconds")}
        self.history = [*card.progress.get("history", []), {"training": card.training} | own]
        return model

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """Train from where it stands to the end, yielding a record every ``log_every`` steps and after each pass.

        ``stop`` is asked after every step; stopping, then or between two records, loses nothing.
        Raises NonFiniteError.
        """
        while not self.finished and not stop():
            started = time.perf_counter()
            self._train_step()
            self.seconds += time.perf_counter() - started
            out_of_time = self.config.minutes is not None and self.seconds >= 60 * self.config.minutes
            self.finished = self.step >= self.total_steps or out_of_time
            passes, rest = divmod(self.step, self.steps_per_pass)
            if self.finished or (rest == 0 and passes % self.config.validate_every == 0):
                yield self._record(validate=True)
            elif rest == 0 or self.step % self.config.log_every == 0:
                yield self._record(validate=False)

    def kept_model(self) -> Model:
        """The model worth keeping: the best on validation under early stopping, else the average, else the last."""
        weights = self.best or self.average
        if weights is None:
            return self.model
        model = Model(self.model.config, seed=None).to(self.device)
        model.load_state_dict(weights)
        return model

    def card(self) -> Card:
        """Where the kept model comes from, for its checkpoint."""
        progress = {
            "steps": self.step,
            "passes": self.step / self.steps_per_pass,
            "seconds": self.seconds,
            "finished": self.finished,
            "valid_bound": self.best_bound if self.best else self.valid_bound,
            "device": self.device.type,
            "history": self.history,  # of the models it started from, the first one first
        }
        return Card(self.model.config, dataclasses.asdict(self.config), progress)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, plain values) from which ``restore`` goes on bit for bit on the same machine."""
        tensors = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        for name, weights in (("average", self.average), ("best", self.best)):
            tensors |= {f"{name}.{key}": weight for key, weight in (weights or {}).items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in moments.items()}
        tensors["generator"] = self.generator.get_state()
        tensors["bound_sum"] = self.bound_sum
        values = {name: getattr(self, name) for name in _PLAIN}
        if self.best_bound == -math.inf:
            values["best_bound"] = None  # JSON knows no infinity
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.model.load_state_dict(_part(tensors, "model"))
        self.average = self._on_device(_part(tensors, "average")) or None
        self.best = self._on_device(_part(tensors, "best")) or None
        adam = self.optimiser.state_dict()
        for name, value in _part(tensors, "adam").items():
            index, key = name.split(".")
            adam["state"].setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict(adam)
        self.generator.set_state(tensors["generator"])
        self.bound_sum = tensors["bound_sum"].to(self.device)
        for name in _PLAIN:
            setattr(self, name, values[name])
        if self.best_bound is None:
            self.best_bound = -math.inf

    def _train_step(self) -> None:
        x = datasets.binarize(self.images[self._batch()], self.generator)
        rate = self.config.learning_rate * SCHEDULES[self.config.schedule].function(self.step / self.total_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss, bound, sample = self.estimator(self.model, x, self.generator)
        loss.backward()
        self._check_finite(bound, sample)
        self.optimiser.step()
        self.step += 1
        self.bound_sum += wide(bound).sum()
        self.bound_images += len(x)
        if self.average:
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))  # a short memory while there is little
            names = list(self.average)
            new = self.model.state_dict()
            torch._foreach_lerp_([self.average[n] for n in names], [new[n] for n in names], 1 - decay)

    def _batch(self) -> Tensor:
        """Indices of this step's images; every pass has its own order, known from its number alone."""
        number, place = divmod(self.step, self.steps_per_pass)
        if self.order is None or self.order[0] != number:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
            self.order = number, torch.randperm(len(self.images), generator=generator).to(self.device)
        size = self.config.batch_size
        return self.order[1][place * size : (place + 1) * size]

    def _check_finite(self, bound: Tensor, sample: Sample) -> None:
        gradients = [weight.grad for weight in self.model.parameters()]
        norm = torch.stack(torch._foreach_norm(gradients)).sum()
        if math.isfinite(float(norm + bound.sum())):
            return
        terms = {"log p(x|h)": sample.log_px, "log p(h)": sample.log_ph, "log q(h|x)": sample.log_qh, "bound": bound}
        term = next((name for name, value in terms.items() if not value.isfinite().all()), "the gradient")
        number, place = divmod(self.step, self.steps_per_pass)
        raise NonFiniteError(
            f"{term} is no longer finite at step {self.step + 1} (pass {number + 1}, batch {place + 1} of "
            f"{self.steps_per_pass}, learning rate {self.optimiser.param_groups[0]['lr']:.2g}); "
            "the weights before this step are kept. A smaller learning rate may help"
        )

    def _record(self, validate: bool) -> Record:
        rate = self.bound_images / max(self.seconds - self.since, 1e-9)
        valid_bound, active = self._validate() if validate else (None, None)
        record = Record(
            step=self.step,
            passes=self.step / self.steps_per_pass,
            bound=self.bound_sum.item() / self.bound_images,
            valid_bound=valid_bound,
            active_units=active,
            images_per_second=rate,
            seconds=self.seconds,
            learning_rate=self.optimiser.param_groups[0]["lr"],
        )
        self.bound_sum.zero_()
        self.bound_images, self.since = 0, self.seconds
        return record

    def _validate(self) -> tuple[float, list[int]]:
        model = self.model
        if self.average:
            model = Model(model.config, seed=None).to(self.device)
            model.load_state_dict(self.average)
        started = time.perf_counter()
        bound = evaluation.mean_bound(model, self.valid, self.estimator.bound, self.config.k).mean().item()
        active = [int(layer.active.sum()) for layer in evaluation.active_units(model, self.valid)]
        self.seconds += time.perf_counter() - started
        self.valid_bound = bound
        if bound > self.best_bound:
            self.best_bound, self.stale = bound, 0
            if self.config.patience:
                self.best = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        else:
            self.stale += 1
            self.finished |= self.stale == self.config.patience
        return bound, active

    def _copy(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}

    def _on_device(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight.to(self.device) for name, weight in weights.items()}


_PLAIN = ("step", "seconds", "since", "bound_images", "valid_bound", "best_bound", "stale", "finished")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix.``, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
