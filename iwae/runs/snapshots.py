"""Snapshots: the model of a run at a few points of its training.

    snapshots/00000013.safetensors    the model after so many steps, a checkpoint like any other

They are taken at validations, at increasing intervals, and are limited in number and in bytes. Whether one is due
depends on the epochs and the existing snapshots alone, so an interrupted run takes the same ones.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwae import checkpoints
from iwae.checkpoints import Card
from iwae.model import Model
from iwae.system import untrusted

MAX_COUNT = 24  # of a run, at most
MAX_BYTES = 64 * 2**20  # of all of them; 24 of the one-layer model take 37 MiB
MIN_COUNT = 4  # if fewer fit, none are taken
NAME = re.compile(r"[0-9]{8,15}")  # of a snapshot's file, without its suffix


@dataclass(frozen=True)
class SnapshotFolder:
    """The snapshots of one run."""

    folder: Path

    def paths(self) -> dict[int, Path]:
        """Files by their step, in order; links, folders and files of other names are skipped."""
        if self.folder.is_symlink():
            return {}
        files = [path for path in sorted(self.folder.glob(f"[0-9]*{checkpoints.SUFFIX}")) if NAME.fullmatch(path.stem)]
        return {int(path.stem): path for path in files if untrusted.is_file(path)}

    def due(self, planned: list[int], epochs: float, steps_per_epoch: int) -> bool:
        """Whether a planned number of epochs has come since the last snapshot."""
        last = max((step / steps_per_epoch for step in self.paths()), default=-1.0)
        return bisect_right(planned, epochs) > bisect_right(planned, last)

    def add(self, model: Model, card: Card) -> None:
        """Save the model as it is now, atomically."""
        checkpoints.save(self.folder / f"{card.progress['steps']:08}{checkpoints.SUFFIX}", model, card)

    def truncate(self, step: int) -> None:
        """Delete the snapshots after ``step``, which the run is about to repeat."""
        for later, path in self.paths().items():
            if later > step:
                path.unlink()


def plan(epochs: int, count: int, model: Model) -> list[int]:
    """Numbers of epochs to take a snapshot after: 0, 1, … ``epochs``, evenly spread over their logarithm.

    At most ``count`` of them, and no more than BYTES have room for.
    """
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    count = min(count, MAX_BYTES // size)
    if count < MIN_COUNT:
        return []
    return sorted({0, *np.geomspace(1, epochs, count - 1).round().astype(int).tolist()})
