"""Background work of the pages that takes seconds: one queue for all visitors, where unwanted jobs are cancelled."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from iwae.system.priority import lower_thread_priority

PATIENCE = 10.0  # seconds without a poll after which a visitor has left
KEPT = 64  # results
Progress = Callable[[int, int], None]
Work = Callable[[Progress], Any]  # calls its progress often; what that raises ends the work


class JobCancelled(Exception):
    """No visitor waits for this job any more."""


class Job:
    """A piece of work: its progress and its result."""

    def __init__(self) -> None:
        self.share = 0.0  # done, from 0 to 1
        self.ahead = 0  # jobs that come before it
        self.result: Any = None
        self.error: Exception | None = None

    @property
    def finished(self) -> bool:
        return self.result is not None or self.error is not None


class Jobs:
    """Runs ``at_once`` jobs while the others wait in order. A job that no visitor wants is cancelled."""

    def __init__(self, at_once: int):
        self._pool = ThreadPoolExecutor(at_once, "jobs", _init_thread)
        self._lock = threading.Lock()
        self._jobs: dict[Hashable, Job] = {}  # in the order in which they were wanted
        self._futures: dict[Hashable, Future] = {}  # of those that are not finished
        self._requests: dict[Hashable, tuple[set[Hashable], float]] = {}  # by visitor: keys, and when it last asked

    def request(self, visitor: Hashable, works: Mapping[Hashable, Work]) -> list[Job]:
        """Set the jobs that this visitor waits for, replacing earlier ones; to be called at every poll."""
        with self._lock:
            self._requests[visitor] = set(works), time.monotonic()
            self._forget_unwanted()
            for key, work in works.items():
                if key not in self._jobs:
                    self._jobs[key] = Job()
                    self._futures[key] = self._pool.submit(self._run, key, self._jobs[key], work)
            waiting = [key for key, future in self._futures.items() if not future.running()]
            for place, key in enumerate(waiting):
                self._jobs[key].ahead = place + 1
            return [self._jobs[key] for key in works]

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._futures)

    def cancel_all(self) -> None:
        """Cancel all jobs, as if every visitor had left."""
        with self._lock:
            self._requests.clear()
            self._forget_unwanted()

    def _forget_unwanted(self) -> None:
        """Forget visitors that have left, jobs that are not begun and not wanted, and the oldest results."""
        oldest = time.monotonic() - PATIENCE
        self._requests = {visitor: given for visitor, given in self._requests.items() if given[1] >= oldest}
        for key, future in list(self._futures.items()):
            if not self._is_wanted(key) and future.cancel():
                del self._futures[key], self._jobs[key]
        done = [key for key in self._jobs if key not in self._futures and not self._is_wanted(key)]
        for key in done[: max(0, len(self._jobs) - KEPT)]:
            del self._jobs[key]

    def _is_wanted(self, key: Hashable) -> bool:
        oldest = time.monotonic() - PATIENCE
        return any(key in keys and asked >= oldest for keys, asked in self._requests.values())

    def _run(self, key: Hashable, job: Job, work: Work) -> None:
        def progress(done: int, total: int) -> None:
            with self._lock:
                wanted = self._is_wanted(key)
            if not wanted:
                raise JobCancelled
            job.share, job.ahead = done / total, 0

        try:
            job.result = work(progress)
        except JobCancelled:
            with self._lock:
                del self._jobs[key]
        except Exception as error:  # reported on the page; the thread survives
            job.error = error
        finally:
            with self._lock:
                self._futures.pop(key, None)


def _init_thread() -> None:
    """Use one torch thread, at a lower priority than the threads that draw pages."""
    torch.set_num_threads(1)
    lower_thread_priority(5)
