"""One model, several processes: each takes a share of every batch, and their gradients are summed. torchrun starts it::

    torchrun --nproc-per-node 4 -m iwae train --dataset mnist --model 2layer --device cuda

All processes draw the noise of the whole batch from the same seed, and each keeps that of its own images. So the sum
of their gradients is the gradient of one process, up to float32 rounding, for any number of processes and any size of
an epoch's last batch. (DistributedDataParallel works on forward(), which an estimator never calls, and averages, which
is right for equal shares only; so the gradients are summed here, as one flat tensor.)

Rank 0 decides: it validates, saves, prints and stops. The others follow it, step by step.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from iwae.data import datasets
from iwae.gradients import Estimator
from iwae.kernels import threads
from iwae.system.processes import STOP_SIGNALS
from iwae.training.config import TrainConfig
from iwae.training.engine import Engine, GradientAndTerms, StepInputs
from iwae.training.loop import Callback, NonFiniteError, Record, Training

STEP, END = 1, 0  # messages of rank 0 to the others


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def group(device: str) -> Iterator[int]:
    """Join the processes that torchrun has started; yields the rank. On CUDA each uses the GPU of its local rank.

    Raises ValueError for a device that is neither cpu nor cuda.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"several processes can share the work on cpu or cuda, not on {device}: choose by --device")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


class SharedTraining(Training):
    """Training by all processes of the group. ``run`` is for rank 0 alone; the others ``follow``.

    Raises ValueError for batches that are smaller than the group.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: datasets.Dataset | None = None,
        device: str | torch.device = "cpu",
        start: Path | None = None,
    ):
        super().__init__(config, data, device, start)
        smallest, size = len(self.images) % config.batch_size or config.batch_size, dist.get_world_size()
        if smallest < size:
            raise ValueError(f"batch size {config.batch_size} leaves a batch of {smallest} images for {size} processes")

    def _engine_type(self) -> Callable[..., Engine]:
        """Not what is recorded or compiled as one program, which could not reach the other processes."""
        return partial(SharedEngine, explicit=self.engine_name == "explicit")

    def run(
        self, stop: Callable[[], bool] = lambda: False, progress: bool = False, callbacks: Sequence[Callback] = ()
    ) -> Generator[Record, None, None]:
        """As Training's; the other processes work too until it ends."""
        dist.broadcast_object_list([asdict(self.config), self.device.type, self.state()])
        try:
            yield from super().run(stop, progress, callbacks)
        finally:
            _send(END)

    def follow(self) -> None:
        """Step whenever rank 0 does."""
        try:
            while _receive() == STEP:
                super().advance()
        except NonFiniteError:  # rank 0 has met it too
            _receive()

    def advance(self) -> None:
        """Tell the others, and step with them."""
        _send(STEP)
        super().advance()


class SharedEngine(Engine):
    """Every process computes its share of the images, and gets the gradient of all."""

    def gradient_and_terms(self, inputs: StepInputs, kl_share: Tensor, estimator: Estimator) -> GradientAndTerms:
        """As Engine's, of the images of all processes."""
        images = len(inputs.x)
        mine = threads.share(dist.get_rank(), dist.get_world_size(), images)
        gradient, own = super().gradient_and_terms(inputs.rows(mine), kl_share, estimator)
        gradient *= own.shape[1] / images
        terms = own.new_zeros(len(own), images)
        terms[:, mine] = own
        for sum_of_all in (gradient, terms):
            dist.all_reduce(sum_of_all)
        return GradientAndTerms(gradient, terms)


def follow() -> None:
    """What a process other than rank 0 does until rank 0 ends it: it writes nothing."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # rank 0 handles them, and saves
    received: list[Any] = [None, None, None]
    dist.broadcast_object_list(received)
    config, device, state = received
    config = replace(TrainConfig.from_dict(config), start=None)  # what it started from has come with the state
    training = SharedTraining(config, datasets.load(config.dataset, progress=False), device)
    training.restore(*state)
    training.follow()


def leave() -> NoReturn:
    """End a process that has followed, at once and without Python's clean-up.

    A thread of gloo may still release what it has received; if it asks for Python's lock after Python has gone, the
    process aborts, and torchrun then stops rank 0, which is still measuring the model.
    """
    os._exit(0)


def _send(message: int) -> None:
    dist.broadcast(torch.tensor(message), 0)


def _receive() -> int:
    message = torch.tensor(END)
    dist.broadcast(message, 0)
    return int(message)
