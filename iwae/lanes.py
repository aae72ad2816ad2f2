"""The engine of a sweep on one GPU: a thread and a CUDA stream for each cell, so many at once.

The kernels of a small model's step follow one another and leave most of a GPU idle; those of other models fill it.
Processes would not: a GPU serves one process at a time.
"""

import threading
from queue import Empty, SimpleQueue

import torch

from iwae.sweep import Job

MOST = 24  # PyTorch has 32 streams


class Lanes:
    """At most ``jobs`` threads. As a context it waits for all of them to save and stop. Raises ValueError for more
    than MOST."""

    def __init__(self, jobs: int):
        if jobs > MOST:
            raise ValueError(f"a GPU takes at most {MOST} cells at once, not {jobs}")
        self.jobs = jobs
        self.working: dict[str, tuple[Job, threading.Thread]] = {}
        self.ended: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self.streams = [torch.cuda.Stream() for _ in range(jobs)] if torch.cuda.is_available() else []

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        for _, thread in self.working.values():
            thread.join()

    def room(self) -> bool:
        return len(self.working) < self.jobs

    def start(self, name: str, job: Job) -> None:
        thread = threading.Thread(target=self._work, args=(name, job), name=name)
        self.working[name] = job, thread
        thread.start()

    def wait(self, seconds: float) -> dict[str, str]:
        ended = {}
        try:
            while True:
                name, reason = self.ended.get(timeout=0 if ended else seconds)
                self.working.pop(name)[1].join()
                ended[name] = reason
        except Empty:
            return ended

    def stop(self) -> None:
        for job, _ in self.working.values():
            job.ask_to_stop()

    def _work(self, name: str, job: Job) -> None:
        stream = self.streams.pop() if self.streams else None
        with torch.cuda.stream(stream):
            reason = job.work()
        if stream:
            self.streams.append(stream)
        self.ended.put((name, reason))
