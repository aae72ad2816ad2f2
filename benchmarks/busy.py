"""Training while another process keeps one core busy, as on a machine that people share."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import pythae_peer, workload
from benchmarks.apart import Elsewhere
from benchmarks.report import Section, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Contender, race
from benchmarks.training import EXACT, PEERS, RESAMPLED, ours, theirs

BATCH = 100


def measure(settings: BenchmarkSettings) -> Section:
    """Every trainer on an idle machine, then beside a process that counts."""
    data = workload.dataset(settings.pick(None, "digits"))
    few, many = settings.pick((1, 50), (1, 5))
    contenders = [
        Contender((few, EXACT), ours(data, few, BATCH), BATCH),
        Contender((many, RESAMPLED), ours(data, many, BATCH, resample=1), BATCH),
    ]
    with Elsewhere(settings.threads) as elsewhere:
        for k, kind in ((few, "vae"), (many, "iwae")) if pythae_peer.INSTALLED else ():
            work = elsewhere.work(theirs, data.name, k, BATCH, kind, settings.device)
            contenders.append(Contender((k, PEERS[kind]), work, BATCH))
        idle = race(contenders, settings.turns, settings.seconds)
        with _busy_core():
            beside = race(contenders, settings.turns, settings.seconds)
    rows = [
        (str(name[0]), name[1], str(idle[name]), str(beside[name]), f"{idle[name].median / beside[name].median:.3g}")
        for name in sorted(idle, key=lambda name: name[0])
    ]
    return Section(f"""Steps as in the section before, batch {BATCH}, first on the idle machine, then while one other
process of the same priority counts without end. torch's own threads wait for each other at every operation, also for
one that does not run; ours, which are Python threads with a share of the images each, once a step.

{table(("k", "trainer", "images/s, idle", "images/s, one core busy", "idle to busy"), rows)}""")


@contextmanager
def _busy_core() -> Iterator[None]:
    counting = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        counting.kill()
        counting.wait()
