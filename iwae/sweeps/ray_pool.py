"""The backend of a sweep on Ray: a task for each cell, which is restarted elsewhere if its machine is lost.

Nodes need no shared disk. A task works in a temporary folder on its node; an uploader thread sends the run's files, as
bytes, to the folder actor on the driver's machine, which writes them to the sweep's folder. If a node is lost, Ray
restarts its tasks, and each resumes from what the folder actor has.

Beside what every node needs (``ray_cluster``), these have the data sets (IWAE_DATA_DIR), or can download them.
"""

import dataclasses
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from iwae import checkpoints
from iwae.data import datasets
from iwae.sweeps.sweep import TrainingJob
from iwae.system import files, ray_cluster

SYNC_SECONDS = 60.0  # between two uploads of a cell: the work that a lost node may cost
# of a run, in the order in which they are read and written: records are at least as recent as the state
FILES = ("state.safetensors", "log.txt", "metrics.jsonl", "checkpoint.safetensors", "config.json", "status.json")

RunFiles = dict[str, bytes]  # by name


class RayCluster:
    """Submits every cell as a task at once; Ray schedules them. As a context manager it cancels what is left on exit.

    Raises as ``ray_cluster.joined``.
    """

    def __init__(
        self, address: str, folder: Path, *, cpus: int = 1, gpus: float = 0.0, sync_seconds: float = SYNC_SECONDS
    ):
        self.until_exit = ExitStack()
        self.ray = self.until_exit.enter_context(ray_cluster.joined(address))
        here = ray_cluster.here(self.ray)
        actor = self.ray.remote(num_cpus=0, scheduling_strategy=here)(FolderActor)
        self.actor = actor.remote(str(folder.resolve()))
        self.task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=ray_cluster.RETRIES)(_work)
        self.threads, self.sync_seconds = cpus, sync_seconds
        self.working: dict[Any, str] = {}  # names by the tasks' references

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self.until_exit.close()

    def has_capacity(self) -> bool:
        return True

    def start(self, name: str, job: TrainingJob) -> None:
        task = self.task.options(name=name).remote(name, job, self.actor, self.threads, self.sync_seconds)
        self.working[task] = name

    def wait(self, seconds: float) -> dict[str, str]:
        ended, _ = self.ray.wait(list(self.working), num_returns=len(self.working), timeout=seconds)
        return {self.working.pop(task): self._reason(task) for task in ended}

    def stop(self) -> None:
        self.ray.get(self.actor.stop.remote())

    def _reason(self, task: Any) -> str:
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            return ray_cluster.reason(self.ray, error)


class FolderActor:
    """An actor that gives tasks on other machines access to the sweep's folder."""

    def __init__(self, folder: str):
        self.folder, self.stopped = Path(folder), False

    def read(self, name: str) -> RunFiles:
        """The files of a cell's run so far."""
        return read_files(self.folder / name)

    def save(self, name: str, contents: RunFiles) -> None:
        write_files(self.folder / name, contents)

    def stop(self) -> None:
        self.stopped = True

    def stop_requested(self) -> bool:
        return self.stopped


def read_files(folder: Path) -> RunFiles:
    """The files of a run that exist."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def write_files(folder: Path, contents: RunFiles) -> None:
    """Write a run's files, each atomically."""
    for name, content in contents.items():
        files.write(folder / name, content)


def _work(name: str, job: TrainingJob, actor: Any, threads: int, sync_seconds: float) -> str:
    """The task: train a cell on this node, from the files that the folder actor has."""
    import ray  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(threads)
    if ray.get(actor.stop_requested.remote()):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        job = dataclasses.replace(job, folder=Path(folder) / name)
        write_files(job.folder, ray.get(actor.read.remote(name)))
        _log_start(job.folder, ray.get_runtime_context().get_node_id())
        uploader = _Uploader(name, job.folder, actor, sync_seconds)
        uploader.start()
        try:
            if not datasets.available(job.config.dataset):
                datasets.download(job.config.dataset, progress=False)
            reason = job.run(save_seconds=min(sync_seconds, 10.0))
        except (ValueError, OSError) as error:
            reason = str(error)
        finally:
            uploader.finish()
        ray.get(actor.save.remote(name, read_files(job.folder)))
    return reason


def _log_start(folder: Path, node: str) -> None:
    """Log the node that works on the run."""
    state, step = folder / "state.safetensors", 0
    if state.exists():
        _, values = checkpoints.load_tensors(state, "state")
        step = values["step"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} from step {step} on {socket.gethostname()}, node {node}\n")


class _Uploader(threading.Thread):
    """Uploads saved files to the folder actor, and stops the run when the actor says so."""

    def __init__(self, name: str, folder: Path, actor: Any, seconds: float):
        super().__init__(daemon=True)
        self.cell, self.folder, self.actor, self.seconds = name, folder, actor, seconds
        self.over = threading.Event()

    def run(self) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        state, uploaded, last = self.folder / "state.safetensors", None, time.monotonic()
        while not self.over.wait(min(self.seconds, 1.0)):
            if ray.get(self.actor.stop_requested.remote()):
                files.write(self.folder / "stop", "")
                return
            saved = state.stat().st_mtime_ns if state.exists() else None
            if saved != uploaded and time.monotonic() - last >= self.seconds:
                ray.get(self.actor.save.remote(self.cell, read_files(self.folder)))
                uploaded, last = saved, time.monotonic()

    def finish(self) -> None:
        self.over.set()
        self.join()
