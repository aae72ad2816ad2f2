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
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from iwae import checkpoints
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.gradients import Estimator, Noise
from iwae.kernels import cuda_graphs, precision, threads, tracing
from iwae.kernels.cuda_graphs import Replayed
from iwae.kernels.finite import Health, NonFiniteError
from iwae.kernels.tracing import Compiled
from iwae.model import Model, ModelConfig, wide
from iwae.training import memory
from iwae.training.config import SCHEDULES, TrainConfig
from iwae.training.prefetch import Ahead
from iwae.training.steps import Call, Drawn, Examined, Found, examine

PARTS = 28  # of the weights on a GPU, where the fused AdamW gives a part of up to 65,536 to one multiprocessor of many


@dataclass(frozen=True)
class Record:
    """One logged point of a run. Bounds are the run's own objective, in nats per image."""

    step: int
    passes: float  # over the training data, so far
    bound: float  # mean over the training images since the last record
    valid_bound: float | None  # on the validation images, at the end of a pass
    active_units: list[int] | None  # of each stochastic layer, on the same images, where these are several
    images_per_second: float
    seconds: float  # of training so far, over all resumed parts
    learning_rate: float


class Training:
    """One run: ``run()`` trains and yields records, ``state()``/``restore()`` carry it over an interruption."""

    def __init__(
        self,
        config: TrainConfig,
        data: datasets.Dataset | None = None,
        device: str | torch.device = "cpu",
        start: Path | None = None,
    ):
        """``data`` defaults to ``datasets.load(config.dataset)``, and has its name; ``start``, where the file of that
        name lies now, to ``config.start``.

        Raises what loading it or ``config.start`` raises, ValueError for data of another name, images of another size
        than the model's, or products that this kind of device has not, and NotEnoughMemoryError where a step would
        need more memory than is free.
        """
        precision.check(config.products, device)
        self.config = config
        self.data = data = data or datasets.load(config.dataset)
        if data.name != config.dataset:
            raise ValueError(f"the data set is {data.name!r}, but the configuration says {config.dataset!r}")
        memory.check(config, device, len(data.train))
        self.device = torch.device(device)
        self.model = self._initial_model(start).to(self.device)
        self.weights = _matrices_first(self.model)
        self.flat = parameters_to_vector(self.weights).detach()  # all in one tensor, of which each becomes a view:
        vector_to_parameters(self.flat, self.weights)  # for the optimiser few weights, not many
        self.on_gpu = self.device.type == "cuda"
        cut = sum(weight.numel() for weight in self.weights if weight.ndim > 1)
        matrices, biases = self.flat.tensor_split([cut])
        size = 4 * math.ceil(cut / (4 * PARTS)) if self.on_gpu else cut  # a GPU reads four numbers at once
        parts = *matrices.split(size), biases
        self.adapted = [nn.Parameter(part) for part in parts]
        self.replays = self.on_gpu  # steps as CUDA graphs
        rate = config.learning_rate
        self.optimiser = torch.optim.AdamW(
            [{"params": self.adapted[:-1], "weight_decay": config.weight_decay}, {"params": self.adapted[-1:]}],
            lr=torch.tensor(rate, device=self.device) if self.on_gpu else rate,  # a graph reads it anew at each step
            eps=config.adam_eps,
            weight_decay=0.0,  # of biases, which say how often a pixel is on
            fused=True,
            capturable=self.on_gpu,
        )
        self.health = Health(self.device)
        self.optimiser.found_inf = self.health.ill  # then the fused AdamW leaves the weights as they are
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.ahead: Ahead[Drawn] = Ahead(self.generator)
        self.images = data.train.images.to(self.device)
        chosen = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(data.valid), generator=chosen)[: config.valid_images]
        self.valid = data.binary("valid")[order].to(self.device)
        self.steps_per_pass = math.ceil(len(self.images) / config.batch_size)
        self.total_steps = config.passes * self.steps_per_pass
        self.warm_steps = round(config.warm_share * config.passes) * self.steps_per_pass if config.warm_k else 0
        self.kl_steps = config.kl_warmup * self.steps_per_pass  # over which the KL gets its whole weight
        self.threads = threads.count()  # of its steps: sums depend on how they are split, so a resumed run keeps it
        self.estimator, self.warm_estimator = config.estimator(), config.estimator(config.warm_k)
        self.calls = {
            e.k: Call(self.model, e, self.weights, self.flat, warms_up=self.kl_steps > 0)
            for e in (self.warm_estimator, self.estimator)
        }
        self.step, self.seconds, self.finished = 0, 0.0, False
        self.bound_sum = wide(torch.zeros((), device=self.device))  # since the last record
        self.bound_images, self.since = 0, 0.0
        self.average = self.flat.clone() if config.ema else None
        self.best, self.best_bound, self.stale = None, -math.inf, 0
        self.valid_bound = None  # the last one
        self.order = torch.zeros(len(self.images), dtype=torch.long, device=self.device)  # of the images in a pass
        self.order_of = -1  # the pass that it is of
        if self.replays:  # what a graph reads in the place of Python's numbers: those of every step of the pass
            self.place = torch.zeros(1, dtype=torch.long, device=self.device)  # the next step's
            self.plan = torch.zeros(self.steps_per_pass, 3, device=self.device)  # of each step, its ``_numbers``
            self.rows = torch.arange(min(config.batch_size, len(self.images)), device=self.device)
        self.replayed: dict[tuple[int, int], Replayed] = {}  # by the number of draws and of steps
        self.compiled: dict[int, Compiled] | None = None  # the gradient, by the number of draws
        if self.replays and tracing.worth_compiling(self.total_steps):
            self.compiled = {}
        self.lists = self.device.type == "cpu" and tracing.worth_listing(self.total_steps)
        self.rate, self.healthy_until = config.learning_rate, 0

    def _initial_model(self, start: Path | None) -> Model:
        wanted = ModelConfig.parse(self.config.model)
        if (pixels := self.data.train.images.shape[1]) != wanted.pixels:
            raise ValueError(f"the images of {self.data.name} have {pixels} pixels; the model needs {wanted.pixels}")
        self.history = []
        if not self.config.start:
            return Model(wanted, pixel_mean=self.data.pixel_mean, seed=self.config.seed)
        model, card = checkpoints.load(start or self.config.start)
        if card.model != wanted:
            raise ValueError(f"{self.config.start} holds a model of sizes {card.model}, not {wanted}")
        told = ("passes", "seconds", "refits", "data")
        own = {name: card.progress[name] for name in told if name in card.progress}
        self.history = [*card.progress.get("history", []), {"training": card.training} | own]
        return model

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """Train from where it stands to the end, yielding a record every ``log_every`` steps and after each pass.

        ``stop`` is asked after every step; stopping, then or between two records, loses nothing. Raises NonFiniteError
        that names step, batch and term; the weights are then the last good ones.
        """
        while not self.finished and not stop():
            started = time.perf_counter()
            with precision.of(self.config.products):
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
        return self._with(self.average if self.best is None else self.best)

    def latest_model(self) -> Model:
        """The model as it stands, which validation looks at: the average, else the last."""
        return self._with(self.average)

    def _with(self, flat: Tensor | None) -> Model:
        if flat is None:
            return self.model
        model = Model(self.model.config, seed=None).to(self.device)
        vector_to_parameters(flat.clone(), _matrices_first(model))
        return model

    def card(self) -> Card:
        """Where the kept model comes from, for its checkpoint."""
        progress = {
            "steps": self.step,
            "passes": self.step / self.steps_per_pass,
            "seconds": self.seconds,
            "finished": self.finished,
            "valid_bound": self.valid_bound if self.best is None else self.best_bound,
            "data": self.data.identity,
            "device": self.device.type,
            "products": precision.used(self.config.products),
            "threads": self.threads,
            "history": self.history,  # of the models it started from, the first one first
        }
        return Card(self.model.config, dataclasses.asdict(self.config), progress)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, plain values) from which ``restore`` goes on bit for bit on the same machine, whatever number of
        threads torch has there: steps are made on as many as before."""
        tensors = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        for name, weights in (("average", self.average), ("best", self.best)):
            if weights is not None:
                tensors[name] = weights
        for name, weights in zip(self._names(), self.adapted, strict=True):
            tensors |= {f"{name}.{key}": value for key, value in self.optimiser.state.get(weights, {}).items()}
        tensors["generator"] = self.ahead.state()
        tensors["bound_sum"] = self.bound_sum
        values = {name: getattr(self, name) for name in _PLAIN} | {"data": self.data.identity["sha256"]}
        if self.best_bound == -math.inf:
            values["best_bound"] = None  # JSON knows no infinity
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what ``state`` gave. Raises ValueError for what an earlier version of the program gave, and where
        the data are no longer the same."""
        if _part(tensors, "adam"):  # moments weight by weight
            raise ValueError("this run was saved by an earlier version, which can go on with it; here, start it anew")
        if values.get("data", self.data.identity["sha256"]) != self.data.identity["sha256"]:
            raise ValueError(f"this run was begun on other images than those of {self.data.name} on this machine")
        self.model.load_state_dict(_part(tensors, "model"))
        self.average, self.best = (
            tensors[name].to(self.device) if name in tensors else None for name in ("average", "best")
        )
        adam = {index: _part(tensors, name) for index, name in enumerate(self._names())}
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": adam if adam[0] else {}})
        self.ahead.restore(tensors["generator"])
        self.bound_sum = tensors["bound_sum"].to(self.device)
        for name in _PLAIN:
            setattr(self, name, values.get(name, getattr(self, name)))  # older states lack the number of threads
        self.healthy_until = self.step
        self.order_of = -1
        self.replayed.clear()  # they hold the optimiser's former tensors
        if self.best_bound is None:
            self.best_bound = -math.inf

    def _names(self) -> list[str]:
        """Of the moments of ``adapted``."""
        more = [f"adam of matrices, part {number}" for number in range(2, len(self.adapted))]
        return ["adam of matrices", *more, "adam of biases"]

    def _train_step(self) -> None:
        """The next step, or on a GPU as many as a recorded graph makes."""
        number, place = divmod(self.step, self.steps_per_pass)
        if self.order_of != number:
            self._begin_pass(number, place)
        estimator, size = self._estimator(self.step), self.config.batch_size
        whole = len(self.images) // size - place  # steps of this pass that have as many images as a graph takes
        steps = cuda_graphs.BURST if self.replays and whole >= cuda_graphs.BURST else 1
        batch = self._batch(place, steps)
        self.rate, share, kl_share = self._numbers(self.step + steps - 1)
        if self.replays and whole > 0:
            if (estimator.k, steps) not in self.replayed:
                self.replayed[estimator.k, steps] = Replayed(lambda: self._planned(estimator, steps), self.generator)
            self.replayed[estimator.k, steps]()
        else:
            with threads.held(self.threads):
                drawn = self.ahead.take(self.step, lambda: self._drawn(batch, estimator))
                self._update(drawn, self.rate, share, torch.full((), kl_share, device=self.device), estimator)
        self.step += steps
        self.bound_images += len(batch)
        if not self.on_gpu:  # where looking would wait for the device: once a record is enough
            self._check_health()

    def _begin_pass(self, number: int, place: int) -> None:
        """Every pass has its own order of the images, known from its number alone."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
        self.order.copy_(torch.randperm(len(self.images), generator=generator))
        self.order_of = number
        if self.replays:
            first = number * self.steps_per_pass
            self.plan.copy_(torch.tensor([self._numbers(first + i) for i in range(self.steps_per_pass)]))
            self.place.fill_(place)

    def _numbers(self, step: int) -> tuple[float, float, float]:
        """Step size of a step, the share of its weights in the average after it, and how much of its weight the KL has:
        from 0 at the first step it rises linearly to 1 after ``kl_steps``."""
        rate = self.config.learning_rate * SCHEDULES[self.config.schedule].function(step / self.total_steps)
        share = 1 - min(self.config.ema, (2 + step) / (11 + step))  # a short memory while there is little
        return rate, share, min(step / self.kl_steps, 1.0) if self.kl_steps else 1.0

    def _planned(self, estimator: Estimator, steps: int) -> None:
        """So many steps from ``place`` on, by the numbers of ``plan``: nothing here is known to Python."""
        for _ in range(steps):
            rate, share, kl_share = self.plan.index_select(0, self.place)[0].unbind()
            batch = self.order.index_select(0, self.place * self.config.batch_size + self.rows)
            self._update(self._drawn(batch, estimator), rate, share, kl_share, estimator)
            self.place += 1

    def _estimator(self, step: int) -> Estimator:
        return self.warm_estimator if step < self.warm_steps else self.estimator

    def _batch(self, place: int, steps: int = 1) -> Tensor:
        """Indices of the images of so many steps of this pass."""
        return self.order[place * self.config.batch_size : (place + steps) * self.config.batch_size]

    def _drawn(self, batch: Tensor, estimator: Estimator) -> Drawn:
        """For a step on the images of these indices."""
        x = self.data.draw(self.images.index_select(0, batch), self.generator)
        return Drawn(x, self._hide(x), estimator.noise(self.model, len(x), self.generator))

    def _draw_ahead(self) -> None:
        """Begin with what the next step draws, in a thread that has nothing else to do until then."""
        step = self.step + 1
        place = step % self.steps_per_pass
        if place and step < self.total_steps and self.device.type == "cpu" and threads.count() > 1:
            batch, estimator = self._batch(place), self._estimator(step)
            self.ahead.begin(step, lambda: self._drawn(batch, estimator))

    def _update(
        self, drawn: Drawn, rate: float | Tensor, share: float | Tensor, kl_share: Tensor, estimator: Estimator
    ) -> None:
        """One step, all of it on the device."""
        gradient, bound, wrong = self._examined(*drawn, kl_share, estimator)
        self._draw_ahead()
        self.health.examine(wrong)
        for weights, own in zip(self.adapted, gradient.split([len(each) for each in self.adapted]), strict=True):
            weights.grad = own
        for group in self.optimiser.param_groups:
            if self.on_gpu:
                group["lr"].copy_(rate) if isinstance(rate, Tensor) else group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.optimiser.step()
        self.bound_sum += bound.where(self.health.ill == 0, 0)
        if self.average is not None:
            self.average.lerp_(self.flat, share)

    def _examined(self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, estimator: Estimator) -> Examined:
        whole = len(x) == self.config.batch_size
        if self.compiled is None or not whole:
            return examine(*self._gradient(x, seen, noise, kl_share, estimator, whole and self.lists))
        if estimator.k not in self.compiled:
            self.compiled[estimator.k] = Compiled(self.calls[estimator.k].examined)
        return Examined(*self.compiled[estimator.k](self.flat, x, seen, kl_share, noise.uniform, *noise.normal))

    def _gradient(
        self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, estimator: Estimator, lasting: bool = False
    ) -> Found:
        return self.calls[estimator.k].gradient(x, seen, noise, kl_share, lasting)

    def _hide(self, x: Tensor) -> Tensor:
        """x as the encoder sees it: some pixels zero, the others larger, so that its sums are right on average."""
        share = self.config.input_dropout
        if not share:
            return x
        return x * (torch.rand(x.shape, generator=self.generator, device=self.device) >= share) / (1 - share)

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

    def _validate(self) -> tuple[float, list[int] | None]:
        model = self.latest_model()
        started = time.perf_counter()
        bound = metrics.mean_bound(model, self.valid, self.estimator.bound, self.config.k).mean().item()
        active = None
        if len(self.valid) > 1:  # of a single image there is no variance
            active = [int(layer.active.sum()) for layer in metrics.active_units(model, self.valid)]
        self.seconds += time.perf_counter() - started
        self.valid_bound = bound
        if bound > self.best_bound:
            self.best_bound, self.stale = bound, 0
            if self.config.patience:
                self.best = parameters_to_vector(_matrices_first(model)).detach()
        elif self.step > self.kl_steps:  # before, the objective is another one
            self.stale += 1
            self.finished |= self.stale == self.config.patience
        return bound, active


_PLAIN = ("step", "seconds", "since", "bound_images", "valid_bound", "best_bound", "stale", "finished", "threads")


def _matrices_first(model: Model) -> list[nn.Parameter]:
    """Its weights, in the order of ``Training.flat``."""
    return sorted(model.parameters(), key=lambda weight: weight.ndim < 2)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix.``, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
