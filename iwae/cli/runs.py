"""``python -m iwae runs``: list, show, stop, resume, delete."""

import dataclasses
import sys
from dataclasses import dataclass

from tqdm import tqdm
from tyro.conf import Positional

from iwae import checkpoints, cli
from iwae.cli.train import describe_nll
from iwae.runs import queue, store
from iwae.system import files, untrusted

DESCRIPTION = """
The training runs, those of the app and those of `python -m iwae train`.

They lie in the folder that IWAE_RUNS_DIR names: by default `runs` in the checkout, or in the user's data folder.

Examples:
  python -m iwae runs list
  python -m iwae runs show 20260131-120000-digits-iwae-k50-s0
  python -m iwae runs stop 20260131-120000-digits-iwae-k50-s0
"""


@dataclass(frozen=True)
class ListRuns:
    """All runs, newest first, with their status."""

    def run(self) -> int:
        found, refused = store.find_runs()
        if not found:
            print(f"no runs in {store.runs_dir()}: `python -m iwae train` starts one")
        waiting = [run.name for run in queue.waiting_runs(store.runs_dir())]
        for run in found:
            print(f"{files.printable(run.name):45} {files.printable(_describe(run, waiting), 300)}")
        for reason in refused.values():
            print(files.printable(reason, 300), file=sys.stderr)
        return 0


@dataclass(frozen=True)
class Show:
    """Everything about one run."""

    name: Positional[str]  # the run, as in `runs list`

    def run(self) -> int:
        run = store.get(self.name)
        settings = dataclasses.asdict(run.config) | {"device": run.device, "logs": run.logs}
        print(f"{run.name}: {files.printable(_describe(run), 2000)}")
        print(f"folder: {run.folder}")
        for name, value in settings.items():
            if value is not None:
                print(f"  {name:16} {files.printable(value, 500)}")
        if untrusted.is_file(run.checkpoint):
            print(f"model: {run.checkpoint}")
            print(describe_nll(checkpoints.read_card(run.checkpoint).metrics))
        return 0


@dataclass(frozen=True)
class Stop:
    """Ask a run to save and stop."""

    name: Positional[str]  # the run, as in `runs list`

    def run(self) -> int:
        store.get(self.name).stop()
        print(f"run {self.name} will save and stop; resume it with: python -m iwae runs resume {self.name}")
        return 0


@dataclass(frozen=True)
class Resume:
    """Resume a run from its last saved state, in the background."""

    name: Positional[str]  # the run, as in `runs list`

    def run(self) -> int:
        store.get(self.name).resume()
        print(f"run {self.name} continues in the background; follow it with: python -m iwae runs show {self.name}")
        return 0


@dataclass(frozen=True)
class Delete:
    """Delete a run with all its files; it must not be running."""

    name: Positional[str]  # the run, as in `runs list`

    def run(self) -> int:
        store.get(self.name).delete()
        print(f"run {self.name} is deleted")
        return 0


def _describe(run: store.Run, waiting: list[str] | None = None) -> str:
    """The status of a run in one line; ``waiting``: the names of the queued runs, if known."""
    status = run.status()
    if status.message:
        return f"{status.phase}: {status.message}"
    if status.phase == "waiting":
        return f"waiting, {queue.position(run, waiting)}"
    try:
        done, left = run.progress()
        records = run.records()
    except store.RunError as error:
        return f"{status.phase}; {error}"
    parts = [status.phase if status.phase == "finished" else f"{status.phase} at {done:.0%}"]
    if status.alive and left is not None:
        parts.append(f"{tqdm.format_interval(left)} left")
    if records:
        parts.append(f"bound {records[-1].bound:.2f} nats")
    return ", ".join(parts)


def parse(words: list[str]) -> ListRuns | Show | Stop | Resume | Delete:
    commands = {"list": ListRuns, "show": Show, "stop": Stop, "resume": Resume, "delete": Delete}
    return cli.parse_group("runs", commands, DESCRIPTION, words)
