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

from iwae import checkpoints, datasets, evaluation, threads
from iwae.bounds import Bound
from iwae.checkpoints import Card
from iwae.gradients import GRADIENTS, Estimator
from iwae.graphs import Replayed
from iwae.health import Health, NonFiniteError
from iwae.model import Model, ModelConfig, Sample, wide

MAX_K = 1_000_000  # draws: what merely checks a configuration must not need more than 4 MB
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
    passes: int = 50
    learning_rate: float = 1e-3
    adam_eps: float = 1e-8
    batch_size: int = 100
    cheap: bool = False  # the estimators that need the least time for the same quality (docs/design.md)


SCHEDULES = {
    "fast": Schedule(_cosine, learning_rate=2e-3, cheap=True),
    "paper": Schedule(_paper, PAPER_PASSES, adam_eps=1e-4, batch_size=20),
    "cosine": Schedule(_cosine),
    "constant": Schedule(_constant, cheap=True),
}
FEW_IMAGES, FEW_ROWS = 25, 500  # images, and draws × images, that are not worth a thread of their own
WARM_K = 5  # draws at the beginning of a cheap run
FEW = 10  # draws up to which resampling costs more than it saves


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. Raises ValueError for values that do not go together.

    None means the default of the schedule, or that the objective does not take the parameter. Under
    ``fast`` and ``constant`` the gradient is dreg where the objective has one, one draw of k > 10 goes backward, and
    the run begins with 5 draws.
    """

    dataset: str = "digits"  # see `python -m iwae data list`
    model: str = "1layer"  # 1layer, 2layer, 2d, or sizes such as 200,200:100/100,100:50
    objective: str = "iwae"  # vae, iwae, power-mean, median, l-alpha, ciwae or miwae
    k: int = 50  # draws from q(h|x) for each image
    warm_k: int | None = None  # draws at the beginning, fewer than k because they are cheaper; 0 for k throughout
    warm_share: float = 0.4  # of the passes, with warm_k draws
    p: float | None = None  # exponent of power-mean
    alpha: float | None = None  # α of l-alpha
    beta: float | None = None  # β of ciwae, the weight of the VAE bound
    k1: int | None = None  # draws in each group of miwae, or of piwae's encoder
    k2: int | None = None  # number of such groups, k1·k2 = k
    gradient: str | None = None  # exact, dreg, stl or piwae
    resample: int | None = None  # draws that go backward, chosen by weight; 0 for all k
    schedule: str = "fast"  # fast, cosine, paper or constant
    passes: int | None = None  # over the training data
    minutes: float | None = None  # stop after so many minutes of training, wherever the schedule stands
    learning_rate: float | None = None  # the largest step size of Adam
    adam_eps: float | None = None  # ε of Adam
    batch_size: int | None = None  # images per step
    weight_decay: float = 0.0  # decoupled, as in AdamW
    input_dropout: float = 0.0  # share of the pixels that the encoder does not see
    ema: float = 0.0  # decay of the averaged weights that are kept instead of the last ones; 0 for none
    patience: int = 0  # stop after so many validations without a better bound, and keep the best; 0 for never
    validate_every: int = 1  # passes between validations
    valid_images: int = 1000  # of the validation set, at most
    log_every: int = 100  # steps between records inside a pass; on a GPU, whole passes go without any
    start: str | None = None  # checkpoint whose weights to go on from, under this objective
    seed: int = 0  # of the weights, the order of the images, the binarization and the draws

    def __post_init__(self) -> None:
        if self.dataset not in datasets.NAMES:
            raise ValueError(f"unknown data set {self.dataset!r}; there are {', '.join(datasets.NAMES)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}")
        for name in ("k", "k1", "k2"):
            if getattr(self, name) is not None:
                self._check(name, f"must not be above {MAX_K:,}", lambda value: value <= MAX_K)
        if self.k1 and self.k2 and self.k1 * self.k2 > MAX_K:
            raise ValueError(f"k1·k2 must not be above {MAX_K:,}, not {self.k1 * self.k2:,}")
        self._fill_in()
        positive = ("passes", "learning_rate", "adam_eps", "batch_size", "validate_every", "valid_images", "log_every")
        for name in positive:
            self._check(name, "must be above 0", lambda value: value > 0)
        for name in ("resample", "weight_decay", "patience", "seed"):
            self._check(name, "must not be below 0", lambda value: value >= 0)
        self._check("seed", f"must not be above {MAX_SEED:,}", lambda value: value <= MAX_SEED)
        for name in ("ema", "input_dropout"):
            self._check(name, "must lie in [0, 1)", lambda value: 0 <= value < 1)
        if self.minutes is not None:
            self._check("minutes", "must be above 0", lambda value: value > 0)
        self._check("warm_k", f"must lie between 0 and k = {self.k}", lambda value: 0 <= value <= self.k)
        self._check("warm_share", "must lie in [0, 1]", lambda value: 0 <= value <= 1)
        ModelConfig.parse(self.model)
        self.estimator()
        self.estimator(self.warm_k)

    def _fill_in(self) -> None:
        """Put the schedule's defaults in the place of None."""
        schedule, bound = SCHEDULES[self.schedule], self.bound()
        many = schedule.cheap and self.k > FEW
        smooth = bound.curvature(torch.zeros(bound.draws or 1, 1)) is not None
        gradient = self.gradient or ("dreg" if schedule.cheap and smooth else "exact")
        defaults = {
            **{name: getattr(schedule, name) for name in ("passes", "learning_rate", "adam_eps", "batch_size")},
            "gradient": gradient,
            # all draws of the plain ELBO weigh the same, and PIWAE cannot be resampled
            "resample": int(many and self.objective != "vae" and gradient != "piwae"),
            "warm_k": WARM_K if many and bound.draws is None and gradient != "piwae" else 0,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check(self, name: str, rule: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if not (isinstance(value, int | float) and abs(value) < math.inf and holds(value)):
            raise ValueError(f"{name.replace('_', ' ')} {rule}, not {value}")

    def bound(self) -> Bound:
        """The objective with its parameters; those that neither it nor the gradient takes are a ValueError."""
        return Bound(self.objective, self._parameters()[0])

    def estimator(self, k: int = 0) -> Estimator:
        """The checked combination of objective and gradient.

        ``k`` draws instead of the run's own are for the warm beginning, where nothing is resampled.
        """
        return Estimator(self.bound(), k or self.k, self.gradient, self._parameters()[1], 0 if k else self.resample)

    def _parameters(self) -> tuple[dict[str, float], dict[str, int]]:
        """Parameters of the objective and of the gradient."""
        given = {name: getattr(self, name) for name in ("p", "alpha", "beta", "k1", "k2")}
        given = {name: value for name, value in given.items() if value is not None}
        takes = GRADIENTS[self.gradient].parameters if self.gradient in GRADIENTS else ()
        return given, {name: given.pop(name) for name in takes if name in given}

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


class Training:
    """One run: ``run()`` trains and yields records, ``state()``/``restore()`` carry it over an interruption."""

    def __init__(self, config: TrainConfig, data: datasets.Dataset | None = None, device: str | torch.device = "cpu"):
        """``data`` defaults to ``datasets.load(config.dataset)``. Raises what loading it or ``config.start`` raises."""
        self.config = config
        self.data = data = data or datasets.load(config.dataset)
        self.device = torch.device(device)
        self.model = self._initial_model().to(self.device)
        self.on_gpu = self.device.type == "cuda"
        self.replays = self.on_gpu  # steps as CUDA graphs
        self.splits = self.device.type == "cpu"  # a step among threads
        rate = config.learning_rate
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=torch.tensor(rate, device=self.device) if self.on_gpu else rate,  # a graph reads it anew at each step
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=self.on_gpu,
        )
        self.health = Health(self.device)
        self.optimiser.found_inf = self.health.ill  # then the fused AdamW leaves the weights as they are
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.images = data.train.images.to(self.device)
        chosen = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(data.valid), generator=chosen)[: config.valid_images]
        self.valid = data.binary("valid")[order].to(self.device)
        self.steps_per_pass = math.ceil(len(self.images) / config.batch_size)
        self.total_steps = config.passes * self.steps_per_pass
        self.warm_steps = round(config.warm_share * config.passes) * self.steps_per_pass if config.warm_k else 0
        self.estimator, self.warm_estimator = config.estimator(), config.estimator(config.warm_k)
        self.step, self.seconds, self.finished = 0, 0.0, False
        self.bound_sum = wide(torch.zeros((), device=self.device))  # since the last record
        self.bound_images, self.since = 0, 0.0
        self.average = self._copy() if config.ema else None
        self.best, self.best_bound, self.stale = None, -math.inf, 0
        self.valid_bound = None  # the last one
        self.order = None  # (number of the pass, its order of the images)
        self.batch = torch.zeros(config.batch_size, dtype=torch.long, device=self.device)  # what a graph reads
        self.replayed: dict[int, Replayed] = {}  # by the number of draws
        self.rate, self.healthy_until = config.learning_rate, 0

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

        ``stop`` is asked after every step; stopping, then or between two records, loses nothing. Until the end torch's
        own threads are held at one (iwae/threads.py). Raises NonFiniteError that names step, batch and term; the
        weights are then the last good ones.
        """
        with threads.held():
            yield from self._run(stop)

    def _run(self, stop: Callable[[], bool]) -> Iterator[Record]:
        while not self.finished and not stop():
            started = time.perf_counter()
            self._train_step()
            self.seconds += time.perf_counter() - started
            out_of_time = self.config.minutes is not None and self.seconds >= 60 * self.config.minutes
            self.finished = self.step >= self.total_steps or out_of_time
            passes, rest = divmod(self.step, self.steps_per_pass)
            if self.finished or (rest == 0 and passes % self.config.validate_every == 0):
                yield self._record(validate=True)
            elif rest == 0 or (self.step % self.config.log_every == 0 and not self.on_gpu):
                yield self._record(validate=False)

    def kept_model(self) -> Model:
        """The model worth keeping: the best on validation under early stopping, else the average, else the last."""
        return self._with(self.best or self.average)

    def latest_model(self) -> Model:
        """The model as it stands, which validation looks at: the average, else the last."""
        return self._with(self.average)

    def _with(self, weights: dict[str, Tensor] | None) -> Model:
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
        self.healthy_until = self.step
        self.replayed.clear()  # they hold the optimiser's former tensors
        if self.best_bound is None:
            self.best_bound = -math.inf

    def _train_step(self) -> None:
        batch = self._batch()
        self.rate = self.config.learning_rate * SCHEDULES[self.config.schedule].function(self.step / self.total_steps)
        for group in self.optimiser.param_groups:
            if self.on_gpu:
                group["lr"].fill_(self.rate)
            else:
                group["lr"] = self.rate
        estimator = self.warm_estimator if self.step < self.warm_steps else self.estimator
        if self.replays and len(batch) == self.config.batch_size:
            self.batch.copy_(batch)
            if estimator.k not in self.replayed:
                self.replayed[estimator.k] = Replayed(lambda: self._update(self.batch, estimator), self.generator)
            self.replayed[estimator.k]()
        else:
            self._update(batch, estimator)
        self.step += 1
        self.bound_images += len(batch)
        if not self.on_gpu:  # where looking would wait for the device: once a record is enough
            self._check_health()
        if self.average:
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))  # a short memory while there is little
            names = list(self.average)
            new = self.model.state_dict()
            torch._foreach_lerp_([self.average[n] for n in names], [new[n] for n in names], 1 - decay)

    def _update(self, batch: Tensor, estimator: Estimator) -> None:
        """One step on the images of these indices, all of it on the device."""
        x = self.data.draw(self.images[batch], self.generator)
        self.optimiser.zero_grad()
        bound, densities = self._backward(x, self._hide(x), estimator)
        norms = torch._foreach_norm([weight.grad for weight in self.model.parameters()])
        self.health.examine(*densities, bound, torch.stack(norms))
        self.optimiser.step()
        self.bound_sum += wide(bound).sum().where(self.health.ill == 0, 0)

    def _backward(self, x: Tensor, seen: Tensor, estimator: Estimator) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Gradients into the weights; the bound [batch] and the three log-densities [k, batch], detached.

        On a CPU every thread takes a share of the images; together they give the gradient of all, up to rounding.
        """
        count = min(threads.count(), len(x) // FEW_IMAGES, estimator.k * len(x) // FEW_ROWS + 1)
        if count < 2 or not self.splits:
            loss, bound, sample = estimator(self.model, x, self.generator, seen)
            loss.backward()
            return bound, sample[:3]
        noise, weights = estimator.noise(self.model, len(x), self.generator), list(self.model.parameters())

        def part(rows: slice) -> tuple[list[Tensor], Tensor, Sample]:
            loss, bound, sample = estimator.at(self.model, x[rows], noise.rows(rows), seen[rows])
            return list(torch.autograd.grad(loss * (len(bound) / len(x)), weights)), bound, sample

        rows = [threads.share(number, count, len(x)) for number in range(count)]
        gradients, bounds, samples = zip(*threads.spread(part, rows), strict=True)
        for more in gradients[1:]:
            torch._foreach_add_(gradients[0], more)
        for weight, gradient in zip(weights, gradients[0], strict=True):
            weight.grad = gradient
        return torch.cat(bounds), tuple(torch.cat(parts, 1) for parts in zip(*(s[:3] for s in samples), strict=True))

    def _hide(self, x: Tensor) -> Tensor:
        """x as the encoder sees it: some pixels zero, the others larger, so that its sums are right on average."""
        share = self.config.input_dropout
        if not share:
            return x
        return x * (torch.rand(x.shape, generator=self.generator, device=self.device) >= share) / (1 - share)

    def _batch(self) -> Tensor:
        """Indices of this step's images; every pass has its own order, known from its number alone."""
        number, place = divmod(self.step, self.steps_per_pass)
        if self.order is None or self.order[0] != number:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
            self.order = number, torch.randperm(len(self.images), generator=generator).to(self.device)
        size = self.config.batch_size
        return self.order[1][place * size : (place + 1) * size]

    def _check_health(self) -> None:
        term, clean = self.health.report()
        if term is None:
            self.healthy_until = self.step
            return
        self.step = self.healthy_until + clean
        number, place = divmod(self.step, self.steps_per_pass)
        raise NonFiniteError(
            f"{term} is no longer finite at step {self.step + 1} (pass {number + 1}, batch {place + 1} of "
            f"{self.steps_per_pass}, learning rate {self.rate:.2g}); "
            "the weights before this step are kept. A smaller learning rate may help"
        )

    def _record(self, validate: bool) -> Record:
        started = time.perf_counter()
        self._check_health()  # waits for a GPU
        self.seconds += time.perf_counter() - started
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
            learning_rate=self.rate,
        )
        self.bound_sum.zero_()
        self.bound_images, self.since = 0, self.seconds
        return record

    def _validate(self) -> tuple[float, list[int]]:
        model = self.latest_model()
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
