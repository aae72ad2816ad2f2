"""``python -m iwae sweep``."""

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from tyro.conf import Positional

from iwae import cli
from iwae.cli.train import STOPPED
from iwae.data import datasets
from iwae.kernels import precision
from iwae.sweeps import grid as cells
from iwae.sweeps import ray_pool, sweep
from iwae.sweeps.process_pool import ProcessPool
from iwae.system import cores, paths
from iwae.training import memory


@dataclass(frozen=True)
class SweepCommand:
    """Train every cell of a grid, on this machine or on a Ray cluster, and gather the results in one table.

    The grid is a TOML file: docs/scale.md describes its format. Finished cells are never run again, and a cell
    that was interrupted continues from its last save: run the same command again. Ctrl-C saves and stops.

    Examples:
      python -m iwae sweep docs/digits.toml --dry-run
      python -m iwae sweep docs/digits.toml --samples 1000
      python -m iwae sweep docs/digits.toml --out /tmp/sweep --jobs 2
      python -m iwae sweep docs/digits.toml --ray auto --cpus-per-cell 2
    """

    grid: Positional[Path]  # a .toml file
    out: Path | None = None  # folder of the runs and the table; sweeps/NAME in the project, after the grid's file
    samples: int = 5000  # draws from q(h|x) for each image of the final test
    images: int | None = None  # number of test images, chosen by a fixed seed; by default all
    device: cli.Device = (
        "cpu"  # where cells are computed on this machine; auto is the first available of cuda, mps and cpu
    )
    jobs: int | None = None  # cells at once on this machine; by default one fewer than the cores, or one on a GPU
    ray: str | None = None  # use this Ray cluster instead: its address, or auto for the one this machine belongs to
    cpus_per_cell: int = 1  # CPUs that Ray keeps for a cell, and its torch threads
    gpus_per_cell: float = 0.0  # GPUs that Ray keeps for a cell; below 1, several share one
    dry_run: bool = False  # only list the cells, their status and their cost

    def run(self) -> int:
        device = self._checked_device()
        found = self._cells(device)
        folder = self.out or paths.sweeps_dir() / self.grid.stem
        work = sweep.Sweep(folder, found, sweep.Measurement(self.samples, self.images))
        if self.dry_run:
            return _list(work)
        cli.check_folder("--out", folder)
        with self._backend(folder, {cell.config.dataset for cell in found}, device) as backend:
            rows = work.run(backend, device, lambda line: print(line, file=sys.stderr, flush=True))
        print(sweep.markdown(rows), end="")
        print(f"\nin {folder}: table.md, table.csv, table.json")
        if any(row.state == "failed" for row in rows):
            return 1
        if any(row.state != "finished" for row in rows):
            print("stopped and saved; run the same command again to continue", file=sys.stderr)
            return STOPPED
        return 0

    def _checked_device(self) -> str:
        cli.check_samples(self.samples)
        for name in ("jobs", "cpus_per_cell"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise cli.UsageError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.images is not None and self.images < 2:
            raise cli.UsageError(f"--images must be at least 2, not {self.images}")
        if not 0 <= self.gpus_per_cell < float("inf"):
            raise cli.UsageError(f"--gpus-per-cell must not be below 0, not {self.gpus_per_cell}")
        if self.ray is None:
            if (self.cpus_per_cell, self.gpus_per_cell) != (1, 0.0):
                raise cli.UsageError("--cpus-per-cell and --gpus-per-cell go with --ray; --jobs and --device without")
            return cli.find_device(self.device)
        if self.jobs is not None or self.device != "cpu":
            raise cli.UsageError("--jobs and --device are for this machine; with --ray, --gpus-per-cell decides")
        return "cuda" if self.gpus_per_cell else "cpu"

    def _cells(self, device: str) -> list[cells.GridCell]:
        if not self.grid.is_file():
            raise cli.UsageError(f"there is no file {self.grid}")
        try:
            found = cells.load(self.grid)
        except cells.GridError as error:
            raise cli.UsageError(str(error)) from None
        for cell in found:
            try:
                precision.check(cell.config.precision, device)
                if self.ray is None:  # the machines of a cluster have other memory
                    memory.check(cell.config, device, ever=True)
            except ValueError as error:
                raise cli.UsageError(f"{self.grid}, cell {cell.name}: {error}") from None
        return found

    def _backend(self, folder: Path, names: set[str], device: str) -> AbstractContextManager[sweep.Backend]:
        if self.ray is not None:
            return ray_pool.RayCluster(self.ray, folder, cpus=self.cpus_per_cell, gpus=self.gpus_per_cell)
        for name in sorted(names):
            if not datasets.available(name):
                datasets.download(name, progress=sys.stderr.isatty())
        return ProcessPool(self.jobs or (max(1, cores.count() - 1) if device == "cpu" else 1))


def _list(work: sweep.Sweep) -> int:
    """List the status of every cell and its remaining training time."""
    left = work.seconds_left()
    rows = work.rows()
    width = max(len(row.cell) for row in rows)
    for row in rows:
        cost = left[row.cell]
        state = f"{row.state}: {row.reason}" if row.reason else row.state
        time = "" if row.state == "finished" else "cost unknown" if cost is None else f"{_time(cost)} of training left"
        print(f"{row.cell:{width}}  {state:13}  {time}".rstrip())
    unknown = sum(cost is None for cost in left.values())
    total = _time(sum(cost or 0.0 for cost in left.values()))
    finished = sum(row.state == "finished" for row in rows)
    print(
        f"{len(rows)} cells, {finished} finished; {total} of training left{f', and {unknown} unknown' * bool(unknown)}"
    )
    return 0


def _time(seconds: float) -> str:
    return tqdm.format_interval(round(seconds))


def parse(words: list[str]) -> SweepCommand:
    return cli.parse(SweepCommand, words)
