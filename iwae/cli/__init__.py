"""The commands of ``python -m iwae``, one module each: a dataclass whose fields are the options, with a ``run`` method.

``parse(words)`` of a module returns that dataclass; invalid arguments raise ValueError, or tyro prints an error and
raises SystemExit. ``run()`` returns the exit status, and raises UsageError for arguments that only it can check.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from iwae.data import datasets
from iwae.evaluation.sampling import Progress
from iwae.system import files
from iwae.training.config import MAX_K, MAX_SEED

STYLE = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)

Device = Literal["auto", "cpu", "cuda", "mps"]


class UsageError(ValueError):
    """An invalid argument; the message names it and what is allowed."""


def parse(command: type, words: list[str]) -> Any:
    """Parse a command without subcommands: the class `TrainCommand` is the command `train`."""
    prog = f"python -m iwae {command.__name__.removesuffix('Command').lower()}"
    return tyro.cli(command, prog=prog, description=cleandoc(command.__doc__ or ""), args=words, config=STYLE)


def parse_group(group: str, commands: dict[str, type], description: str, words: list[str]) -> Any:
    """One of the commands that share the first word ``group``."""
    app = tyro.extras.SubcommandApp()
    for name, command in commands.items():
        app.command(name=name)(command)
    return app.cli(prog=f"python -m iwae {group}", description=description.strip(), args=words, config=STYLE)


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed must lie between 0 and {MAX_SEED}, not {seed}")


def check_samples(samples: int) -> None:
    """Raise UsageError for a number of draws out of range."""
    if samples < 1:
        raise UsageError(f"--samples must be at least 1, not {samples}")
    if samples > MAX_K:
        raise UsageError(f"--samples must not be above {MAX_K:,}, not {samples:,}")


def check_dataset(name: str) -> None:
    """Raise UsageError for a data set that does not exist."""
    if name not in datasets.NAMES:
        raise UsageError(f"unknown data set {name!r}; there are {', '.join(datasets.NAMES)}")


def check_output(option: str, path: Path | None) -> None:
    """Raise UsageError if the file that an option names cannot be written; None is accepted."""
    if path is not None:
        try:
            files.check_target(path)
        except OSError as error:
            raise UsageError(f"{option}: {error}") from None


def check_folder(option: str, path: Path | None) -> None:
    """The same for a folder, which may exist and hold files, or not."""
    if path is None:
        return
    if not path.is_dir():
        if os.path.lexists(path):
            raise UsageError(f"{option} must name a folder, not the file {path}")
        return check_output(option, path)
    inside = path / "file"
    try:
        files.check_target(inside)
    except OSError as error:
        raise UsageError(f"{option}: {str(error).replace(str(inside), str(path))}") from None


def find_device(name: str) -> str:
    """cpu, cuda or mps; ``auto`` is the first available of cuda, mps and cpu. UsageError if it is absent."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [device for device, is_there in there.items() if is_there]
    if name == "auto":
        return found[0]
    if name not in found:
        raise UsageError(f"--device {name}: this machine, or this build of torch, has {', '.join(found)} only")
    return name


@contextmanager
def image_bar() -> Iterator[Progress]:
    """A progress bar for an evaluation, on a terminal only."""
    with tqdm(unit="image", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
