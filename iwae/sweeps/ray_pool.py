"""The engine of a sweep on Ray: a task for each cell, which goes on elsewhere when its machine is lost.

Nodes need no shared disk. A task works in a temporary folder of its own node; a courier thread beside it carries the
run's files, as bytes, to the keeper, an actor on the machine that drives the sweep, which puts them into the sweep's
folder. When a node is lost, Ray starts its tasks again, and each begins from what the keeper has.

The package travels to the nodes with the job. What every node must have is requirements.txt and ray, in the versions
of the driver, and the data sets (IWAE_DATA_DIR), which it fetches itself if it can.
"""

import dataclasses
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from iwae import checkpoints
from iwae.data import datasets
from iwae.sweeps.sweep import Job, SweepError
from iwae.system import files
from iwae.system.paths import PACKAGE

RETRIES = 20  # lost workers that a cell may see before it counts as failed
CARRY_SECONDS = 60.0  # between two reports of a cell: what a lost node may cost
# of a run, in the order in which they are read and written: records reach at least as far as the state before them
PARTS = ("state.safetensors", "log.txt", "metrics.jsonl", "checkpoint.safetensors", "config.json", "status.json")

Parts = dict[str, bytes]  # by name


class Cluster:
    """Every cell is a task at once; Ray finds room for it. As a context it leaves the cluster as it was.

    Raises SweepError when Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self, address: str, folder: Path, *, cpus: int = 1, gpus: float = 0.0, carry_seconds: float = CARRY_SECONDS
    ):
        self.ray = _import_ray()
        if address.startswith("ray://"):
            raise SweepError(
                f"--ray {address}: the sweep must run on a machine of the cluster, with its address or auto"
            )
        runtime = {"py_modules": [str(PACKAGE)]}
        try:
            self.ray.init(address, runtime_env=runtime, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise SweepError(f"no Ray cluster at {address} could be joined: {error}") from None
        here = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self.ray.get_runtime_context().get_node_id(), soft=False
        )
        keeper = self.ray.remote(num_cpus=0, scheduling_strategy=here)(Keeper)
        self.keeper = keeper.remote(str(folder.resolve()))
        self.task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_work)
        self.threads, self.carry_seconds = cpus, carry_seconds
        self.working: dict[Any, str] = {}  # names by the tasks' references

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.ray.shutdown()  # with all that is still at work for this job

    def room(self) -> bool:
        return True

    def start(self, name: str, job: Job) -> None:
        task = self.task.options(name=name).remote(name, job, self.keeper, self.threads, self.carry_seconds)
        self.working[task] = name

    def wait(self, seconds: float) -> dict[str, str]:
        ended, _ = self.ray.wait(list(self.working), num_returns=len(self.working), timeout=seconds)
        return {self.working.pop(task): self._reason(task) for task in ended}

    def stop(self) -> None:
        self.ray.get(self.keeper.stop.remote())

    def _reason(self, task: Any) -> str:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            return str(error.cause) or type(error.cause).__name__
        except self.ray.exceptions.RayError as error:
            return " ".join(str(error).split())


class Keeper:
    """The sweep's folder, for tasks on other machines."""

    def __init__(self, folder: str):
        self.folder, self.stopped = Path(folder), False

    def parts(self, name: str) -> Parts:
        """What there is of a cell's run."""
        return read_parts(self.folder / name)

    def keep(self, name: str, parts: Parts) -> None:
        write_parts(self.folder / name, parts)

    def stop(self) -> None:
        self.stopped = True

    def asked_to_stop(self) -> bool:
        return self.stopped


def read_parts(folder: Path) -> Parts:
    """The files of a run that are there."""
    return {name: (folder / name).read_bytes() for name in PARTS if (folder / name).exists()}


def write_parts(folder: Path, parts: Parts) -> None:
    """A run's files, each whole."""
    for name, content in parts.items():
        files.write(folder / name, content)


def _work(name: str, job: Job, keeper: Any, threads: int, carry_seconds: float) -> str:
    """The task: a cell on this node, from what the keeper has of it."""
    ray = _import_ray()
    torch.set_num_threads(threads)
    if ray.get(keeper.asked_to_stop.remote()):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        job = dataclasses.replace(job, folder=Path(folder) / name)
        write_parts(job.folder, ray.get(keeper.parts.remote(name)))
        _log_start(job.folder, ray.get_runtime_context().get_node_id())
        courier = _Courier(name, job.folder, keeper, carry_seconds)
        courier.start()
        try:
            if not datasets.available(job.config.dataset):
                datasets.download(job.config.dataset, progress=False)
            reason = job.work(save_seconds=min(carry_seconds, 10.0))
        except (ValueError, OSError) as error:
            reason = str(error)
        finally:
            courier.end()
        ray.get(keeper.keep.remote(name, read_parts(job.folder)))
    return reason


def _log_start(folder: Path, node: str) -> None:
    """A line for every node that has worked on the run."""
    state, step = folder / "state.safetensors", 0
    if state.exists():
        _, values = checkpoints.load_tensors(state, "state")
        step = values["step"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} from step {step} on {socket.gethostname()}, node {node}\n")


class _Courier(threading.Thread):
    """Takes what is saved to the keeper, and the wish to stop from it."""

    def __init__(self, name: str, folder: Path, keeper: Any, seconds: float):
        super().__init__(daemon=True)
        self.cell, self.folder, self.keeper, self.seconds = name, folder, keeper, seconds
        self.over = threading.Event()

    def run(self) -> None:
        ray = _import_ray()
        state, carried, last = self.folder / "state.safetensors", None, time.monotonic()
        while not self.over.wait(min(self.seconds, 1.0)):
            if ray.get(self.keeper.asked_to_stop.remote()):
                files.write(self.folder / "stop", "")
                return
            saved = state.stat().st_mtime_ns if state.exists() else None
            if saved != carried and time.monotonic() - last >= self.seconds:
                ray.get(self.keeper.keep.remote(self.cell, read_parts(self.folder)))
                carried, last = saved, time.monotonic()

    def end(self) -> None:
        self.over.set()
        self.join()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise SweepError("a sweep on a cluster needs Ray: pip install -r requirements-cluster.txt") from None
    return ray
