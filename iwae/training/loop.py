"""Training: a generator of records, repeatable from its seed and resumable bit for bit::

    training = Training(TrainConfig(dataset="digits", k=50))
    for record in training.run(progress=True):
        print(record)

``run`` is the algorithm, ``update`` one step of it; ``engine.py`` says how a step is made fast. Bounds are in nats per
image, and are those of the run's own objective.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters
from tqdm import tqdm

from iwae import checkpoints
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.evaluation import activity, metrics
from iwae.gradients import Estimator
from iwae.kernels import precision, threads
from iwae.kernels.finite import NonFiniteError, NonFiniteMonitor
from iwae.model import Model, ModelConfig, to_float64
from iwae.shapes import check_same_shape
from iwae.training import engine as engines
from iwae.training import memory
from iwae.training.config import SCHEDULES, TrainConfig
from iwae.training.engine import Engine, Scheduled, StepInputs
from iwae.training.optimizer import FlatAdamW, matrices_first, named


@dataclass(frozen=True)
class Record:
    """One logged point of a run. Bounds are the run's own objective, in nats per image."""

    step: int
    epochs: float  # over the training data, so far
    bound: float  # mean over the training images since the last record
    valid_bound: float | None  # on the validation images, at the end of an epoch
    active_units: list[int] | None  # of each stochastic layer, on the same images, where these are several
    images_per_second: float
    seconds: float  # of training so far, over all resumed parts
    learning_rate: float


class Callback:
    """What ``Training.run`` calls on its way; a subclass overrides what it needs. ``iwae.runs.loggers`` has some.

    An exception of a callback ends the run and comes out of ``run``. The training is then at a whole step, and can be
    saved, or continued by another ``run``; only the record that was being passed on is lost.
    """

    def on_start(self, training: "Training") -> None:
        """Before the first step of each ``run``; ``training.step`` is 0, or where the training continues."""

    def on_record(self, record: Record, training: "Training") -> None:
        """For every record, before ``run`` yields it; ``training`` stands at its step."""

    def on_end(self, training: "Training") -> None:
        """Once for each ``on_start`` that has returned: ``run`` is at its end (``training.finished``), was stopped or
        closed, or failed."""


def load_start(config: TrainConfig, wanted: ModelConfig, place: Path | None = None) -> tuple[Model, Card]:
    """The model of ``config.start``, whose file may lie in another ``place``, and its card.

    Raises CheckpointError for a file that cannot be read, and ValueError for a model of other sizes than ``wanted``.
    """
    model, card = checkpoints.load(place or Path(str(config.start)))
    check_same_shape(card.model.shape, str(config.start), wanted.shape, config.dataset)
    if card.model != wanted:
        raise ValueError(f"{config.start} holds a model of sizes {card.model}, not {wanted}")
    return model, card


class Training:
    """One run: ``run()`` trains and yields records, ``state()``/``restore()`` carry it over an interruption."""

    def __init__(
        self,
        config: TrainConfig,
        data: datasets.Dataset | None = None,
        device: str | torch.device = "cpu",
        start: Path | None = None,
        engine: str | None = None,
    ):
        """
        Args:
            data: of the name in ``config.dataset``, and loaded by it if not given.
            device: where to train.
            start: where the file of ``config.start`` lies now, by default at that path.
            engine: how steps are made, a name in ``engine.ENGINES``; by default the fastest for the device.

        Raises:
            ValueError: for data of another name, images of another size than the model's, a precision or an engine that
                this device does not have, and whatever loading ``data`` or ``config.start`` raises.
            NotEnoughMemoryError: where a step needs more memory than is free.
        """
        precision.check(config.precision, device)
        self.config = config
        self.data = data = data or datasets.load(config.dataset)
        if data.name != config.dataset:
            raise ValueError(f"the data set is {data.name!r}, but the configuration says {config.dataset!r}")
        memory.check(config, device, len(data.train))
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.model = self._initial_model(start).to(self.device)
        self.binary = self.model.likelihood.binary  # whether it is trained on zeros and ones
        self.monitor = NonFiniteMonitor(self.device)
        self.optimizer = FlatAdamW(self.model, config, self.monitor.diverged)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)  # of binarization, dropout and draws
        self.images = data.train.images.to(self.device)
        chosen = torch.Generator().manual_seed(config.seed)
        order = torch.randperm(len(data.valid), generator=chosen)[: config.valid_images]
        self.valid = data.x("valid", self.binary)[order].to(self.device)
        self.steps_per_epoch = math.ceil(len(self.images) / config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.warm_steps = round(config.warm_share * config.epochs) * self.steps_per_epoch if config.warm_k else 0
        self.kl_steps = config.kl_warmup * self.steps_per_epoch  # over which the KL gets its whole weight
        self.threads = threads.count()  # of its steps: sums depend on how they are split, so a resumed run keeps it
        self.estimator, self.warm_estimator = config.estimator(), config.estimator(config.warm_k)
        self.step, self.seconds, self.finished = 0, 0.0, False
        self.bound_sum = to_float64(torch.zeros((), device=self.device))  # since the last record
        self.bound_images, self.since = 0, 0.0
        self.average = self.optimizer.flat.clone() if config.ema else None
        self.best, self.best_bound, self.stale = None, -math.inf, 0
        self.valid_bound = None  # the last one
        self.order = torch.zeros(len(self.images), dtype=torch.long, device=self.device)  # of the images in an epoch
        self.order_of: int | None = None  # the epoch that it is of
        self.learning_rate: Any = config.learning_rate  # of the last step
        self.finite_until = 0
        self.engine_name = engine or engines.choose(self.device, self.total_steps, self.model)
        self.engine = self._build_engine()

    def run(
        self, stop: Callable[[], bool] = lambda: False, progress: bool = False, callbacks: Sequence[Callback] = ()
    ) -> Generator[Record, None, None]:
        """Train from where it stands to the end, yielding a record every ``log_every`` steps and after each epoch.

        Args:
            stop: asked after every step; stopping, then or between two records, loses nothing.
            progress: show a bar on stderr.
            callbacks: called in this order at the start and for every record, and in the opposite order at the end.

        Raises:
            NonFiniteError: that names step, batch and term; the weights are then the last finite ones.
        """
        with (
            ExitStack() as ends,
            tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not progress) as bar,
        ):
            for callback in callbacks:
                callback.on_start(self)
                ends.callback(callback.on_end, self)
            while not self.finished and not stop():
                with self._timed(), precision.of(self.config.precision):
                    self.advance()
                epoch, place = divmod(self.step, self.steps_per_epoch)
                self.finished = self.step >= self.total_steps or self._out_of_time()
                validates = self.finished or (place == 0 and epoch % self.config.validate_every == 0)
                if validates or place == 0 or (self.step % self.config.log_every == 0 and not self.on_gpu):
                    with self._timed():
                        self._check_finite()  # waits for a GPU
                    bound = active_units = None
                    if validates:
                        bound, active_units = self.validate()
                        self._stop_early(bound)
                    record = self._record(bound, active_units)
                    bar.set_postfix_str(f"bound {record.bound:.2f} nats")
                    for callback in callbacks:
                        callback.on_record(record, self)
                    yield record
                bar.update(self.step - bar.n)

    def advance(self) -> None:
        """The next step; on a GPU the next several, where a CUDA graph makes them."""
        epoch = self.step // self.steps_per_epoch
        if self.order_of != epoch:
            self.order.copy_(self.shuffled(epoch))
            self.order_of = epoch
        steps = self.engine.step(self)  # calls ``update`` for each
        self.bound_images += len(self.batch(steps))
        self.step += steps
        self.learning_rate = self.scheduled(self.step - 1).learning_rate
        if not self.on_gpu:  # where asking would wait for the device: once a record is enough
            self._check_finite()

    def update(self, batch: Tensor, now: Scheduled, estimator: Estimator) -> None:
        """One step on the images of these indices. All of it happens on the device."""
        x = self.data.draw(self.images.index_select(0, batch), self.generator, self.binary)
        inputs = StepInputs(x, self.dropout(x), estimator.noise(self.model, len(x), self.generator))
        gradient, bound, non_finite = self.engine.gradient(inputs, now.kl_share, estimator)
        self.monitor.observe(non_finite)
        self.optimizer.step(gradient, now.learning_rate)
        self.bound_sum += bound.where(self.monitor.diverged == 0, 0)
        if self.average is not None:
            self.average.lerp_(self.optimizer.flat, now.average_share)

    def shuffled(self, epoch: int) -> Tensor:
        """Indices of all images in the order of an epoch, which follows from seed and number alone."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.images), generator=generator)

    def batch(self, steps: int = 1) -> Tensor:
        """Indices of the images of the next step, or of the next ``steps`` of this epoch."""
        start = self.step % self.steps_per_epoch * self.config.batch_size
        return self.order[start : start + steps * self.config.batch_size]

    def scheduled(self, step: int) -> Scheduled:
        """Learning rate, moving average and KL warm-up at a step."""
        rate = self.config.learning_rate * SCHEDULES[self.config.schedule].function(step / self.total_steps)
        share = 1 - min(self.config.ema, (2 + step) / (11 + step))  # a short memory while there is little to average
        return Scheduled(rate, share, min(step / self.kl_steps, 1.0) if self.kl_steps else 1.0)

    def current_estimator(self) -> Estimator:
        """That of the next step: of few draws at the beginning of a run that warms up."""
        return self.warm_estimator if self.step < self.warm_steps else self.estimator

    def dropout(self, x: Tensor) -> Tensor:
        """x as the encoder sees it: some pixels zero, the others scaled so that sums keep their mean."""
        share = self.config.input_dropout
        if not share:
            return x
        return x * (torch.rand(x.shape, generator=self.generator, device=self.device) >= share) / (1 - share)

    def validate(self) -> tuple[float, list[int] | None]:
        """The bound and the active units of ``latest_model`` on the validation images."""
        before, model = self.seconds, self.latest_model()
        with self._timed():
            bound = metrics.mean_bound(model, self.valid, self.estimator.bound, self.config.k).mean().item()
            active = None
            if len(self.valid) > 1:  # a single image has no variance
                active = [int(layer.active.sum()) for layer in activity.active_units(model, self.valid)]
        self.since += self.seconds - before  # the training's images per second leave it out
        return bound, active

    def _stop_early(self, bound: float) -> None:
        """Keep the weights of the best validation, and stop after ``patience`` others in a row."""
        self.valid_bound = bound
        if bound > self.best_bound:
            self.best_bound, self.stale = bound, 0
            if self.config.patience:
                self.best = (self.optimizer.flat if self.average is None else self.average).clone()
        elif self.step > self.kl_steps:  # before, the objective is another one
            self.stale += 1
            self.finished |= self.stale == self.config.patience

    def _record(self, valid_bound: float | None, active_units: list[int] | None) -> Record:
        record = Record(
            step=self.step,
            epochs=self.step / self.steps_per_epoch,
            bound=self.bound_sum.item() / self.bound_images,
            valid_bound=valid_bound,
            active_units=active_units,
            images_per_second=self.bound_images / max(self.seconds - self.since, 1e-9),
            seconds=self.seconds,
            learning_rate=self.learning_rate,
        )
        self.bound_sum.zero_()
        self.bound_images, self.since = 0, self.seconds
        return record

    def _check_finite(self) -> None:
        term, finite_steps = self.monitor.report()
        if term is None:
            self.finite_until = self.step
            return
        self.step = self.finite_until + finite_steps
        number, place = divmod(self.step, self.steps_per_epoch)
        raise NonFiniteError(
            f"{term} is no longer finite at step {self.step + 1} (epoch {number + 1}, batch {place + 1} of "
            f"{self.steps_per_epoch}, learning rate {self.learning_rate:.2g}); "
            "the weights before this step are kept. A smaller learning rate may help"
        )

    def _out_of_time(self) -> bool:
        return self.config.minutes is not None and self.seconds >= 60 * self.config.minutes

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Counts towards ``seconds``."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def _initial_model(self, start: Path | None) -> Model:
        wanted = replace(ModelConfig.parse(self.config.model), shape=self.data.shape)
        self.history = []
        if not self.config.start:
            return Model(wanted, pixel_mean=self.data.pixel_mean, seed=self.config.seed)
        model, card = load_start(self.config, wanted, start)
        kept = ("epochs", "seconds", "refits", "data")
        own = {name: card.progress[name] for name in kept if name in card.progress}
        self.history = [*card.progress.get("history", []), {"training": card.training} | own]
        return model

    def _build_engine(self) -> Engine:
        estimators, warms_up = (self.warm_estimator, self.estimator), self.kl_steps > 0
        return self._engine_type()(self.model, self.optimizer, estimators, self.config.batch_size, warms_up)

    def _engine_type(self) -> Callable[..., Engine]:
        return engines.find(self.engine_name, self.device, self.model)

    def kept_model(self) -> Model:
        """The model worth keeping: the best on validation under early stopping, else the average, else the last."""
        return self._model_of(self.average if self.best is None else self.best)

    def latest_model(self) -> Model:
        """The model as it stands, which is validated: the average, else the last."""
        return self._model_of(self.average)

    def _model_of(self, flat: Tensor | None) -> Model:
        if flat is None:
            return self.model
        model = Model(self.model.config, seed=None).to(self.device)
        vector_to_parameters(flat.clone(), matrices_first(model))
        return model

    def card(self) -> Card:
        """Where the kept model comes from, for its checkpoint."""
        progress = {
            "steps": self.step,
            "epochs": self.step / self.steps_per_epoch,
            "seconds": self.seconds,
            "finished": self.finished,
            "valid_bound": self.valid_bound if self.best is None else self.best_bound,
            "data": self.data.identity,
            "device": self.device.type,
            "precision": precision.used(self.config.precision),
            "threads": self.threads,
            "history": self.history,  # of the models it started from, the first one first
        }
        return Card(self.model.config, dataclasses.asdict(self.config), progress)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, plain values) from which ``restore`` continues bit for bit on the same machine, whatever number of
        threads torch has there: steps are made on as many as before."""
        tensors = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        tensors |= {name: kept for name in ("average", "best") if (kept := getattr(self, name)) is not None}
        tensors |= self.optimizer.state()
        tensors |= {"generator": self.generator.get_state(), "bound_sum": self.bound_sum}
        values = {name: getattr(self, name) for name in _PLAIN} | {"data": self.data.identity["sha256"]}
        if self.best_bound == -math.inf:
            values["best_bound"] = None  # JSON has no infinity
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from what ``state`` returned. Raises ValueError for the state of an early version of the program,
        and where the data have changed."""
        if named(tensors, "adam"):  # moments weight by weight
            raise ValueError("this run was saved by an earlier version, which can resume it; start it anew here")
        if values.get("data", self.data.identity["sha256"]) != self.data.identity["sha256"]:
            raise ValueError(f"this run was begun on other images than those of {self.data.name} on this machine")
        self.model.load_state_dict(named(tensors, "model"))
        self.average, self.best = (
            tensors[name].to(self.device) if name in tensors else None for name in ("average", "best")
        )
        self.optimizer.restore(tensors)
        self.generator.set_state(tensors["generator"])
        self.bound_sum = tensors["bound_sum"].to(self.device)
        for name in _PLAIN:
            setattr(self, name, values.get(name, getattr(self, name)))  # older states lack the number of threads
        self.finite_until, self.order_of = self.step, None
        self.engine = self._build_engine()  # a recorded step holds the former tensors
        if self.best_bound is None:
            self.best_bound = -math.inf


_PLAIN = ("step", "seconds", "since", "bound_images", "valid_bound", "best_bound", "stale", "finished", "threads")
