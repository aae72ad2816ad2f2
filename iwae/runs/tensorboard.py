"""A run's records as TensorBoard scalars, an option of every run (``tensorboard --logdir DIR`` shows them).

The log always holds all records of the run: resuming a run first rewrites the log from the records that are kept, so
no step appears twice.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iwae.system import optional
from iwae.training.config import TrainConfig
from iwae.training.loop import Record

FLUSH_SECONDS = 5  # between writes to the disk
EVENTS = "events.out.tfevents.*"  # how TensorBoard names its files


def available() -> bool:
    """Whether its package is installed."""
    return not optional.missing("tensorboard")


def require() -> None:
    """Raises MissingError unless its package is installed."""
    optional.require("logging for TensorBoard", "tensorboard")


@contextmanager
def log(
    folder: Path, config: TrainConfig, records: Sequence[Record], started: float
) -> Iterator[Callable[[Record], None]]:
    """Write ``records`` and the settings to ``folder``, then every record that the returned function is called with.

    ``started``: when the run began, in seconds since 1970; TensorBoard's relative time is then that of training.
    Raises MissingError, and OSError where the folder cannot be written.
    """
    require()
    from torch.utils.tensorboard import SummaryWriter  # imported here because it is slow
    from torch.utils.tensorboard.summary import hparams

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(EVENTS):
        old.unlink()
    # purge_step makes a TensorBoard that is already open discard what it has read
    with SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS, purge_step=0) as writer:
        settings = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
        writer.add_text("config", f"```json\n{json.dumps(settings, indent=1)}\n```", walltime=started)
        experiment, session, _ = hparams(settings, dict.fromkeys(("bound/training", "bound/validation"), 0))
        file_writer: Any = writer.file_writer
        for summary in (experiment, session):
            file_writer.add_summary(summary, walltime=started)

        def write(record: Record) -> None:
            for tag, value, step in scalars(record):
                writer.add_scalar(tag, value, step, walltime=started + record.seconds)

        for record in records:
            write(record)
        yield write


def scalars(record: Record) -> Iterator[tuple[str, float, int]]:
    """(tag, value, step): bounds in nats per image, and at the end of an epoch, bounds and units by epochs as well."""
    measures = {"bound/training": record.bound, "bound/validation": record.valid_bound}
    units = {f"active units/layer {layer}": count for layer, count in enumerate(record.active_units or [], 1)}
    pace = {"images per second": record.images_per_second, "learning rate": record.learning_rate}
    pace["epochs"] = record.epochs
    for tag, value in (measures | units | pace).items():
        if value is not None:
            yield tag, value, record.step
    if record.epochs.is_integer():
        for tag, value in (measures | units).items():
            if value is not None:
                yield f"by epoch/{tag}", value, int(record.epochs)
