"""Peak memory of one job in a fresh process: ``peak("evaluate", threads=2, k=500)``.

The child imports, loads data and weights, resets the system's record of its peak, notes it as the baseline, works, and
prints both. On Linux the peak is VmHWM, because a child's ru_maxrss begins with what its parent held;
elsewhere it is ru_maxrss. glibc's threshold for large blocks is held at its default, which by itself would rise: so the
peak is of what lives at once, and not of how the heap falls to pieces.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import evaluation, pythae_peer, training, workload
from iwae.evaluation.metrics import evaluate

ROOT = Path(__file__).parents[1]
MIB = 2**20
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Of a process, in MiB."""

    baseline: float  # after imports, data and weights
    peak: float

    @property
    def own(self) -> float:
        """What the job itself took."""
        return self.peak - self.baseline


def peak(job: str, threads: int, **arguments: int) -> Peak:
    """Run one of JOBS in a process of its own. Raises RuntimeError with its last words if it fails."""
    words = [sys.executable, "-m", "benchmarks.probe", job, json.dumps(arguments | {"threads": threads})]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{job} {arguments} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return Peak(*json.loads(done.stdout.splitlines()[-1]))


def _train(k: int, batch: int, steps: int, resample: int = 0) -> Callable[[], None]:
    data = workload.dataset("digits")
    return lambda: training.ours(data, k, batch, resample=resample)(steps)


def _pythae_train(k: int, batch: int, steps: int) -> Callable[[], None]:
    x = workload.dataset("digits").binary("train")
    return lambda: pythae_peer.trainer(workload.MODEL, x, k, batch, "iwae", "cpu")(steps)


def _evaluate(k: int, images: int) -> Callable[[], None]:
    model, x = workload.trained(), workload.test_images(workload.dataset("digits"), images)
    return lambda: evaluate(model, x, samples=k, prune=False)


def _nll(k: int, images: int) -> Callable[[], None]:
    model, x = workload.trained(), workload.test_images(workload.dataset("digits"), images)
    return lambda: evaluation.nll(model, x, k)


def _pythae_nll(k: int, images: int) -> Callable[[], None]:
    peer, x = pythae_peer.twin(workload.trained()), workload.test_images(workload.dataset("digits"), images)
    return lambda: pythae_peer.nll(peer, x, k, min(k, 100))


JOBS = {  # each prepares, and returns the work
    "train": _train,
    "pythae train": _pythae_train,
    "evaluate": _evaluate,
    "nll": _nll,
    "pythae nll": _pythae_nll,
}


def _import_optimiser() -> None:
    """torch imports its compiler at the first step of any optimiser: tens of MiB that are no job's own."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()


def _bytes_so_far() -> int:
    """The greatest memory this process has held, since the record was reset."""
    if STATUS.exists():
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    units = 1 if sys.platform == "darwin" else 1024
    return units * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(job: str, arguments: str) -> None:
    """In the child."""
    options = json.loads(arguments)
    torch.set_num_threads(options.pop("threads"))
    _import_optimiser()
    work = JOBS[job](**options)
    if RESET.exists():
        RESET.write_text("5")
    baseline = _bytes_so_far()
    work()
    print(json.dumps([baseline / MIB, _bytes_so_far() / MIB]))


if __name__ == "__main__":
    main(*sys.argv[1:])
