"""The commands of ``python -m iwae``, one module each: a dataclass whose fields are the options, with a ``run`` method.

``parse(words)`` of a module returns that dataclass; invalid arguments raise ValueError, or tyro prints an error and
raises SystemExit. ``run()`` returns the exit status, and raises UsageError for arguments that only it can check.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from iwae import checkpoints
from iwae.adapters import environment
from iwae.analysis import umap_maps
from iwae.checkpoints import Card
from iwae.data import datasets
from iwae.evaluation.sampling import Progress
from iwae.model import Model
from iwae.shapes import check_same_shape
from iwae.system import files
from iwae.training.config import MAX_K, MAX_SEED

STYLE = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)

Device = Literal["auto", "cpu", "cuda", "mps"]


class UsageError(ValueError):
    """An invalid argument; the message names it and what is allowed."""


def parse(command: type, words: list[str]) -> Any:
    """Parse a command without subcommands: the class `TrainCommand` is the command `train`."""
    prog = f"python -m iwae {command.__name__.removesuffix('Command').lower()}"
    words = added(words)
    return tyro.cli(command, prog=prog, description=cleandoc(command.__doc__ or ""), args=words, config=STYLE)


def added(words: list[str]) -> list[str]:
    """The words with the images of ``--dataset path:PLACE`` added, and their data set's name instead of it.

    Raises ValueError for images that cannot be used or kept.
    """
    found = list(words)
    for place, word in enumerate(words):
        option = "--dataset=" if word.startswith("--dataset=") else ""
        path = word.removeprefix(option)
        if path.startswith(datasets.PATH) and (option or words[place - 1 : place] == ["--dataset"]):
            try:
                found[place] = option + datasets.added(path)
            except (OSError, RuntimeError) as error:
                raise UsageError(str(error)) from None
    return found


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


def check_name(name: str) -> str:
    """The full name of a data set; raise UsageError for an unknown one."""
    try:
        return datasets.resolve(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_dataset(name: str, model: Path | None = None, shape: tuple[int, int] = (0, 0)) -> str:
    """The full name of a data set. Raise UsageError for one that does not exist, and for one that a ``model`` for
    images of this ``shape`` cannot take."""
    try:
        datasets.source(name)
        if model is not None:
            check_same_shape(shape, str(model), datasets.shape(name), name)
        return datasets.resolve(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


@dataclass(frozen=True)
class Loaded:
    """The model that a command was given."""

    checkpoint: Path
    model: Model
    card: Card
    name: str
    fingerprint: str  # tells it from others

    def dataset(self, name: str | None) -> str:
        """The full name of a data set that it can take, by default its own. Raises UsageError."""
        name = name or self.card.training.get("dataset")
        if not name:
            raise UsageError(f"what {self.checkpoint} was trained on is not known: name a data set with --dataset")
        return check_dataset(name, self.checkpoint, self.card.model.shape)


def is_adapter(checkpoint: Path) -> bool:
    """Whether it is ``adapter:NAME``, a model that IWAE_ADAPTERS names, and not a file."""
    return str(checkpoint).startswith(environment.PREFIX)


def check_checkpoint(checkpoint: Path, *not_adapters: str) -> None:
    """Raise UsageError for a model that is not there, and for an adapter beside one of the options in
    ``not_adapters``."""
    if not is_adapter(checkpoint):
        if not checkpoint.is_file():
            raise UsageError(f"there is no file {checkpoint}")
        return
    if not_adapters:
        raise UsageError(f"{not_adapters[0]} is for checkpoints: {checkpoint} is code, and has no file")
    try:
        environment.find(str(checkpoint))
    except ValueError as error:
        raise UsageError(str(error)) from None


def load(checkpoint: Path, device: str) -> Loaded:
    """A model after ``check_checkpoint``. Raises as ``checkpoints.load`` does."""
    if is_adapter(checkpoint):
        found, model = environment.find(str(checkpoint)), environment.load(str(checkpoint), device)
        return Loaded(checkpoint, model, Card(model.config, {}), str(checkpoint), found.fingerprint)
    model, card = checkpoints.load(checkpoint, device)
    return Loaded(checkpoint, model, card, checkpoint.stem, umap_maps.fingerprint(checkpoint))


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
