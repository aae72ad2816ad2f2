"""One model, several processes: each takes a share of every batch, and their gradients are summed. torchrun starts it::

    torchrun --nproc-per-node 4 -m iwae train --dataset mnist --model 2layer --device cuda

All processes draw the noise of the whole batch from the same seed, and each keeps that of its own images. So the sum
of their gradients is the gradient of one process, up to float32 rounding, for any number of processes and any size of
a pass's last batch. (DistributedDataParallel works on forward(), which an estimator never calls, and averages, which is
right for equal shares only; so the gradients are summed here, as the one flat tensor that they are.)

Rank 0 decides: it validates, saves, prints and stops. The others follow it, step by step.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from iwae.data import datasets
from iwae.gradients import Estimator, Noise
from iwae.kernels import threads
from iwae.system.processes import ENDINGS
from iwae.training.config import TrainConfig
from iwae.training.loop import NonFiniteError, Record, Training
from iwae.training.steps import Found

STEP, END = 1, 0  # what rank 0 tells the others


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def group(device: str) -> Iterator[int]:
    """Join the processes that torchrun has started; gives the rank. On CUDA everyone has the GPU of its local rank.

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
        self.replays, self.compiled = False, None  # what is recorded, or compiled, knows nothing of the others

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """As Training's, with the others at work too until it ends."""
        dist.broadcast_object_list([asdict(self.config), self.device.type, self.state()])
        try:
            yield from super().run(stop)
        finally:
            _tell(END)

    def follow(self) -> None:
        """Step whenever rank 0 does."""
        try:
            while _hear() == STEP:
                super()._train_step()
        except NonFiniteError:  # rank 0 has met it too
            _hear()

    def _train_step(self) -> None:
        _tell(STEP)
        super()._train_step()

    def _gradient(
        self, x: Tensor, seen: Tensor, noise: Noise, kl_share: Tensor, estimator: Estimator, lasting: bool = False
    ) -> Found:
        """Every process makes its part, and gets the whole."""
        mine = threads.share(dist.get_rank(), dist.get_world_size(), len(x))
        gradient, own = super()._gradient(x[mine], seen[mine], noise.rows(mine), kl_share, estimator, lasting)
        gradient *= own.shape[1] / len(x)
        values = own.new_zeros(len(own), len(x))
        values[:, mine] = own
        for sum_of_all in (gradient, values):
            dist.all_reduce(sum_of_all)
        return gradient, values


def follow() -> None:
    """What a process other than rank 0 does until that says it is over: it writes nothing."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)  # rank 0 hears them, and saves
    received: list[Any] = [None, None, None]
    dist.broadcast_object_list(received)
    config, device, state = received
    config = replace(TrainConfig.from_dict(config), start=None)  # what it started from has come with the state
    training = SharedTraining(config, datasets.load(config.dataset, progress=False), device)
    training.restore(*state)
    training.follow()


def leave() -> NoReturn:
    """The end of a process that has followed: at once, with nothing that Python tidies up.

    A thread of gloo's may still let go of what it has received; if it asks for Python's lock when that is no more, the
    process aborts, and torchrun then stops rank 0, which is still measuring the model.
    """
    os._exit(0)


def _tell(word: int) -> None:
    dist.broadcast(torch.tensor(word), 0)


def _hear() -> int:
    word = torch.tensor(END)
    dist.broadcast(word, 0)
    return int(word)
