"""``python -m iwae train``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from iwae import checkpoints, cli
from iwae.data import datasets
from iwae.evaluation.stats import plus_minus
from iwae.kernels import precision
from iwae.runs import store, worker
from iwae.runs.loggers import LOGGERS, Kind
from iwae.system import files
from iwae.training import distributed, memory
from iwae.training.config import TrainConfig
from iwae.training.loop import Record, Training, load_start

STOPPED = 130  # exit status, as for any program that Ctrl-C ends


@dataclass(frozen=True)
class TrainCommand:
    """Train a model.

    Training runs in the foreground with a progress bar, and is listed among the app's runs. Ctrl-C saves and stops,
    --resume continues.
    Under torchrun, the processes share every batch.
    Options that are None follow from the schedule, or belong to objectives other than the default.

    Examples:
      python -m iwae train --objective vae --k 1 --epochs 20
      python -m iwae train --objective ciwae --beta 0.5 --gradient dreg --minutes 2
      python -m iwae train --objective l-alpha --alpha 4 --k 1 --kl-warmup 10
      python -m iwae train --dataset mnist --model 2layer --schedule paper --out models/iwae.safetensors
      python -m iwae train --dataset mnist --epochs 100 --log tensorboard mlflow --log-dir logs
      torchrun --nproc-per-node 2 -m iwae train --dataset mnist --model 2layer
      python -m iwae train --resume 20260131-120000-digits-iwae-k50-s0
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    device: cli.Device = "auto"  # where to compute; auto is the first available of cuda, mps and cpu
    resume: str | None = None  # continue the run of this name, with its settings and number of threads
    out: Path | None = None  # where to copy the finished model, a .safetensors file
    log: tuple[Kind, ...] = ()  # also log the run for these programs, on this disk only
    log_dir: Path | None = None  # the folder of these logs; logs in the folder of the runs by default

    def run(self) -> int:
        device = cli.find_device(self.device)
        if self.config.start and not Path(self.config.start).is_file():
            raise cli.UsageError(f"--start: there is no file {self.config.start}")
        if self.out and (self.out.suffix != checkpoints.SUFFIX):
            raise cli.UsageError(f"--out must name a {checkpoints.SUFFIX} file, not {self.out}")
        cli.check_output("--out", self.out)
        cli.check_folder("--log-dir", self.log_dir)
        if self.log_dir and not self.log:
            raise cli.UsageError(f"--log-dir needs --log with at least one of {', '.join(LOGGERS)}")
        try:
            precision.check(self.config.precision, device)
        except ValueError as error:
            raise cli.UsageError(f"--precision: {error}") from None
        if self.resume is None:
            try:
                memory.check(self.config, device)  # before anything is downloaded
                if self.config.start:
                    load_start(self.config, self.config.model_config)
            except ValueError as error:
                raise cli.UsageError(str(error)) from None
        if not distributed.launched():
            return self._train(device, Training)
        with distributed.group(device) as rank:
            if rank == 0:
                return self._train(device, distributed.SharedTraining)
            distributed.follow()
        distributed.leave()

    def _train(self, device: str, training_type: type[Training]) -> int:
        if self.resume is not None:
            run = store.get(self.resume)
            run.prepare()
        else:
            if not datasets.available(self.config.dataset):
                datasets.download(self.config.dataset, progress=sys.stderr.isatty())
            run = store.create(self.config, device, store.logs_for(self.log, self.log_dir))
        print(f"run {run.name}", file=sys.stderr)
        if precision.used(run.config.precision) != run.config.precision:
            print(
                f"matrix products are in float32: this processor has no use for {run.config.precision}", file=sys.stderr
            )
        if run.config.estimator().biased:
            bound = run.config.bound().title
            print(
                f"stl is biased for {bound} with k = {run.config.k}; dreg is not, and costs the same", file=sys.stderr
            )
        with _follow(run) as on_record:
            status = worker.work(run, on_record, training_type=training_type)
        if status.phase == "stopped":
            print(f"stopped and saved; resume with: python -m iwae train --resume {run.name}", file=sys.stderr)
            return STOPPED
        model = run.checkpoint
        if self.out:
            try:
                files.write(self.out, model.read_bytes())
            except OSError as error:
                raise files.TargetError(
                    f"{self.out} cannot be written ({files.error_text(error)}); the model is in {model}"
                ) from error
            model = self.out
        print(f"model: {model}")
        print(describe_nll(checkpoints.read_card(model).metrics))
        return 0


def describe_nll(metrics: dict[str, Any]) -> str:
    """The test NLL of a checkpoint's card, with its units and how it was measured."""
    if not metrics:
        return "not evaluated yet"
    return (
        f"test NLL {plus_minus(metrics['nll'], metrics['nll_se'])} nats per image "
        f"({metrics['images']:,} images, {metrics['samples']:,} draws each)"
    )


@contextmanager
def _follow(run: store.Run) -> Iterator[worker.OnRecord]:
    """Show records as they arrive: a progress bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield worker.print_record
        return
    with tqdm(total=1.0, bar_format="{percentage:3.0f}%|{bar}| {desc}") as bar:

        def show(record: Record, training: Training) -> None:
            bar.n, left = store.progress_at(run.config, record, training.total_steps)
            valid = "" if training.valid_bound is None else f", validation {training.valid_bound:.2f}"
            text = f"{tqdm.format_interval(left)} left, bound {record.bound:.2f}{valid} nats"
            text += f", {record.images_per_second:,.0f} images/s"
            bar.set_description_str("training is done, measuring the test NLL" if training.finished else text)

        yield show


def parse(words: list[str]) -> TrainCommand:
    old = {f"--{old}": f"--{new}" for old, new in checkpoints.OLD_NAMES.items()}
    words = [old.get(option, option) + equals + value for option, equals, value in (w.partition("=") for w in words)]
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if "--resume" in options and options - {"--resume", "--out", "--help"}:
        raise cli.UsageError("--resume keeps the run's settings: only --out may be given with it")
    if "--tensorboard" in options:  # until there were other loggers
        if options & {"--log", "--log-dir"}:
            raise cli.UsageError(
                "--tensorboard DIR is the old name of --log tensorboard --log-dir DIR: use these alone"
            )
        words = ["--log", "tensorboard", *(word.replace("--tensorboard", "--log-dir", 1) for word in words)]
    return cli.parse(TrainCommand, words)
