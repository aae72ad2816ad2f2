"""The process of a run in the background: it waits for its turn, then does as ``python -m iwae runs work NAME``."""

import signal
import sys
from pathlib import Path

from iwae import niceness, turns
from iwae.__main__ import main  # imports torch only when it runs a command


def train_in_turn(folder: Path) -> int:
    """Returns the exit status; the run of this folder is finished, stopped or failed then."""
    run = turns.Folder(folder)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())  # it may be long until there is a training to interrupt
    try:
        with run.claim():
            place = turns.wait(run)
    except turns.RunError as error:
        print("error:", error, file=sys.stderr)
        return 1
    if place is None:
        return 0
    with place:
        return main(["runs", "work", run.name])


if __name__ == "__main__":
    niceness.give_way(niceness.TRAINING)
    sys.exit(train_in_turn(Path(sys.argv[1])))
