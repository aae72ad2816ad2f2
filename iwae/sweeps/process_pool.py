"""The backend of a sweep on one machine: a process for each cell, at most ``jobs`` at once."""

import multiprocessing
import signal
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from iwae.sweeps.sweep import TrainingJob

_METHODS = multiprocessing.get_all_start_methods()
PROCESSES: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
PROCESSES.set_forkserver_preload(
    ["iwae.sweeps.sweep", "torch._dynamo"]
)  # one import for all; optimisers need the latter


class ProcessPool:
    """At most ``jobs`` processes, with one torch thread each. As a context manager it ends all of them on exit."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self.working: dict[Connection, tuple[str, TrainingJob, BaseProcess]] = {}

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(self, *exception: object) -> None:
        for _, _, process in self.working.values():
            process.kill()
            process.join()

    def has_capacity(self) -> bool:
        return len(self.working) < self.jobs

    def start(self, name: str, job: TrainingJob) -> None:
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=_work, args=(job, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the process
        self.working[ours] = name, job, process

    def wait(self, seconds: float) -> dict[str, str]:
        ended = {}
        ready = wait(list(self.working), seconds)
        for pipe in [pipe for pipe in self.working if pipe in ready]:
            name, _, process = self.working.pop(pipe)
            try:
                ended[name] = pipe.recv()
            except EOFError:
                process.join()
                ended[name] = f"its process ended without a message (exit code {process.exitcode})"
            process.join()
            pipe.close()
        return ended

    def stop(self) -> None:
        for _, job, _ in self.working.values():
            job.ask_to_stop()


def _work(job: TrainingJob, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep's own process handles it, and asks to stop
    torch.set_num_threads(1)
    pipe.send(job.run())
