"""The background process of a run: it waits for a slot, then trains the run (``worker.main``).

Its parent only waits for it, so that its end is recorded even if it is killed. The parent is forked before anything is
loaded, and takes 2 MB.
"""

import os
import signal
import sys
from pathlib import Path

from iwae.runs import queue
from iwae.system import priority, processes


def train_in_turn(folder: Path) -> int:
    """Returns the exit status; the run of this folder is finished, stopped or failed then."""
    run = queue.RunFolder(folder)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())  # it may be long until there is a training to interrupt
    try:
        with run.claim():
            slot = queue.wait_for_slot(run)
    except queue.RunError as error:
        print("error:", error, file=sys.stderr)
        return 1
    if slot is None:
        return 0
    with slot:
        from iwae.runs import worker  # torch, which a process that waits does without

        return worker.main(folder)


def explained(folder: Path) -> int:
    """``train_in_turn`` in a child of this process; returns its exit status, once the run says how it ended."""
    if not hasattr(os, "fork"):
        return train_in_turn(folder)
    killed = processes.oom_kill_count()
    child = os.fork()
    if child == 0:
        return train_in_turn(folder)
    for number in processes.STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the child handles them, and saves
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out_of_memory = code == -signal.SIGKILL and processes.oom_kill_count() != killed
    queue.RunFolder(folder).record_exit(processes.describe_exit(code, out_of_memory))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    priority.lower_priority(priority.TRAINING)
    sys.exit(explained(Path(sys.argv[1])))
