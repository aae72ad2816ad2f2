"""The available models: those that ship in ``checkpoints/``, those of your runs, and files that were added."""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from pathlib import Path

import torch

from iwae import checkpoints, likelihoods
from iwae.adapters import environment
from iwae.analysis import costs, umap_maps
from iwae.checkpoints import Card, CheckpointError
from iwae.data import datasets
from iwae.evaluation.stats import plus_minus
from iwae.model import Model
from iwae.runs import store
from iwae.shapes import check_same_shape, checked_shape
from iwae.system import files, paths, untrusted
from iwae.system.files import printable
from iwae.system.paths import SHIPPED, models_dir
from iwae.system.untrusted import UntrustedError
from iwae.training.config import TrainConfig
from iwae.training.wake_sleep import Refit

MAX_BYTES = 10 * 2**20  # of a model that is added; below server.maxUploadSize. The largest that ships has 3 MB
MAX_TOTAL = 500 * 2**20  # of all of them
FEWEST_DRAWS = 1000  # of one digit, that every model must be able to make: those of the first page
# how keys of models that do not ship begin, and what labels say
OWN = {"run:": " · own run", "model:": " · added", environment.PREFIX: " · adapter"}
DEFAULT_PAIR = ("mnist-1layer-vae-k1", "mnist-1layer-iwae-k50")  # same architecture, data, seed and epochs
FAVOURITES = {  # pairs of shipped models that differ in one respect
    "VAE vs IWAE": DEFAULT_PAIR,
    "1 vs 2 layers": ("mnist-1layer-iwae-k50", "mnist-2layer-iwae-k50"),
    "2-D": ("mnist-2d-vae-k1", "mnist-2d-iwae-k50"),
    "continued": ("mnist-fixed-1layer-vae-k1", "mnist-fixed-1layer-vae-k1-then-iwae-k50"),
}
LAYERS = {
    "1layer": "1 layer",
    "2layer": "2 layers",
    "2d": "2-D",
    "conv": "convolutional",
}  # how people read the presets
LONGEST_NAME = 42  # characters


class CatalogError(ValueError):
    """A model cannot be named or removed as asked; the message says why."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A model that can be chosen: a stable key, its file and its card. Compared by identity: a file has one."""

    key: str  # file name without suffix, "model:" before it if it was added; "run:" and the run's name; "adapter:NAME"
    path: Path
    card: Card
    given: str = ""  # the name that its owner gave it

    @cached_property
    def config(self) -> TrainConfig:
        """How it was trained."""
        return TrainConfig.from_dict(self.card.training)

    @property
    def shipped(self) -> bool:
        """Whether it lies in ``checkpoints/``, and is neither a run nor an added model."""
        return not self.key.startswith(tuple(OWN))

    @property
    def changeable(self) -> bool:
        """Whether it can be renamed and removed: a run or an added model."""
        return not self.shipped and not self.key.startswith(environment.PREFIX)

    @property
    def identity(self) -> tuple[str, int]:
        """The path of its file and the time of its last change: the same for the same model. For ``load_model``."""
        return str(self.path), self.path.stat().st_mtime_ns

    def load(self, device: str | torch.device = "cpu") -> Model:
        """The model. Raises as ``checkpoints.load`` does."""
        return load_model(self.identity[0], device)

    @property
    def fingerprint(self) -> str:
        """A hash of its weights."""
        return umap_maps.fingerprint(self.path)

    @property
    def dataset(self) -> str:
        """What it was trained on; empty where that is not known."""
        return self.config.dataset

    @property
    def objective(self) -> str:
        """``IWAE``; empty where it is not known."""
        return self.config.bound().title

    @property
    def k(self) -> int | None:
        """Draws in training; None where that is not known."""
        return self.config.k

    @property
    def binary(self) -> bool:
        """Whether its images are of zeros and ones; else of grey levels."""
        return likelihoods.find(self.card.model.likelihood).binary

    @property
    def kind(self) -> str:
        """``vae`` for objectives that weigh all draws alike, ``iwae`` for the others."""
        return self.config.kind

    @cached_property
    def trained_on(self) -> frozenset[str]:
        """Names of the data sets that it and the models that it went on from were trained on."""
        before = (part.get("training", {}).get("dataset") for part in self.card.parts)
        return frozenset(name for name in (self.config.dataset, *before) if isinstance(name, str))

    @cached_property
    def short(self) -> str:
        """``IWAE k = 50``."""
        return f"{self.config.bound().title} k = {self.config.k}"

    @cached_property
    def layers(self) -> str:
        """``1 layer``, ``2-D, gaussian, relu``, or its sizes where no preset has them."""
        sizes, *names = str(self.card.model).split("@")
        return ", ".join([LAYERS.get(sizes, sizes), *names])

    @cached_property
    def epochs(self) -> float:
        """Over the training data, with those of the models that it continued from."""
        return sum(part.get("epochs") or 0 for part in self.card.parts)

    @cached_property
    def continued_from(self) -> str:
        """``VAE k = 1``: the last model before it with another objective or k; empty if there was none."""
        before = [part["training"] for part in self.card.parts[:-1] if "training" in part]
        configs = [TrainConfig.from_dict(training) for training in before]
        titles = [f"{config.bound().title} k = {config.k}" for config in configs]
        return next((title for title in reversed(titles) if title != self.short), "")

    @cached_property
    def regularisation(self) -> str:
        """``input dropout 0.2, EMA 0.999``; empty for none."""
        images = sum(refit.images for refit in Refit.from_progress(self.card.progress))
        refitted = [f"encoder refitted on {images:,} own images"] * bool(images)
        return ", ".join([*self.config.regularisation, *refitted])

    @cached_property
    def _marks(self) -> dict[str, str]:
        """What may distinguish it from models of the same objective and k, the plainest first; empty where usual."""
        made = re.match(r"run:\d{4}(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", self.key)
        return {
            "data": self.config.dataset,
            "before": f"from {self.continued_from}" if self.continued_from else "",
            "regularisation": "regularised" if self.regularisation else "",
            "epochs": f"{self.epochs:.4g} epochs",
            "gradient": "" if self.config.gradient in ("exact", "dreg") else self.config.gradient.upper(),
            "seed": f"seed {self.config.seed}",
            "made": "{1}/{0} {2}:{3}:{4}".format(*made.groups()) if made else "",
        }

    def _name(self, marks: tuple[str, ...]) -> str:
        """A name that tells these marks, and always the architecture where it is not one layer of 50 units."""
        layers = self.layers if self.layers != LAYERS["1layer"] else ""
        own = next((text.removeprefix(" · ") for prefix, text in OWN.items() if self.key.startswith(prefix)), "")
        return " · ".join(filter(None, [self.short, layers, *(self._marks[mark] for mark in marks), own]))

    @property
    def nll(self) -> str:
        """``NLL 87.2 ± 0.2 nats``, or what is known instead."""
        metrics = self.card.metrics
        if metrics.get("nll") is None:
            return "not evaluated"
        return f"NLL {plus_minus(metrics['nll'], metrics['nll_se'])} nats"

    @cached_property
    def label(self) -> str:
        """``IWAE k = 50 · 1 layer · mnist · NLL 87.20 ± 0.24 nats``."""
        own = next((text for prefix, text in OWN.items() if self.key.startswith(prefix)), "")
        return " · ".join(filter(None, [self.short, f"{self.layers}{own}", self.dataset, self.nll]))


@dataclass(frozen=True, eq=False)
class AdapterEntry(Entry):
    """A model that ``IWAE_ADAPTERS`` names: nothing is known of its training, and it has no file."""

    mark: str = ""  # its fingerprint

    @cached_property
    def config(self) -> TrainConfig:
        raise CatalogError(f"{self.key} was trained elsewhere: its settings are not known")

    @property
    def kind(self) -> str:
        """``iwae`` where its name says so."""
        return "iwae" if "iwae" in self.short.lower() else "vae"

    @cached_property
    def short(self) -> str:
        """Its name."""
        return self.key.removeprefix(environment.PREFIX)

    @property
    def dataset(self) -> str:
        return ""

    @property
    def objective(self) -> str:
        return ""

    @property
    def k(self) -> int | None:
        return None

    @cached_property
    def trained_on(self) -> frozenset[str]:
        return frozenset()

    @cached_property
    def regularisation(self) -> str:
        return ""

    @property
    def identity(self) -> tuple[str, int]:
        return self.key, int(self.mark[:15], 16)

    @property
    def fingerprint(self) -> str:
        return self.mark


def load_model(place: str, device: str | torch.device = "cpu") -> Model:
    """The model of an ``Entry.identity``, by its first part. Raises as ``checkpoints.load`` does."""
    if place.startswith(environment.PREFIX):
        return environment.load(place, device)
    return checkpoints.load(place, device)[0]


def entries() -> tuple[dict[str, Entry], dict[str, str]]:
    """(models by key, own runs newest first; reasons by file for those that cannot be used)."""
    own_runs, refused = store.find_runs()
    found = {}
    shipped = [(path.stem, path, SHIPPED) for path in sorted(SHIPPED.glob(f"*{checkpoints.SUFFIX}"))]
    own = [(f"run:{run.name}", run.checkpoint, run.folder) for run in own_runs if os.path.lexists(run.checkpoint)]
    added = [(f"model:{path.stem}", path, models_dir()) for path in sorted(models_dir().glob(f"*{checkpoints.SUFFIX}"))]
    for key, path, folder in shipped + own + added:
        name = folder.name if key.startswith("run:") else path.name
        try:
            checkpoints.check_place(path, folder)
            found[key] = _entry(key, path, path.stat().st_mtime_ns, _given(key, path))
        except CheckpointError as error:
            refused[name] = str(error)
        except OSError as error:  # it has just gone
            refused[name] = f"{printable(name)}: {error.strerror}"
    models, reasons = environment.models()
    for name, one in models.items():
        key = f"{environment.PREFIX}{name}"
        found[key] = AdapterEntry(key, Path(key), Card(one.model.config, {}), f"{name} · adapter", one.fingerprint)
    return found, refused | reasons


def cards() -> dict[str, Entry]:
    """Models that were trained and measured to complete the table, by name: their cards are kept, not their weights."""
    paths = sorted((SHIPPED / "cards").glob("*.json"))
    return {path.stem: Entry(path.stem, path, checkpoints.read_card_alone(path)) for path in paths}


def names(found: Mapping[str, Entry]) -> dict[str, str]:
    """A short name for each of these models, all different: the name that its owner gave it, else its objective and k
    with as few marks as tell it from the others, within LONGEST_NAME characters where that is possible."""
    return dict(zip(found, _names(tuple(found.values())), strict=True))


@lru_cache(maxsize=4)
def _names(found: tuple[Entry, ...]) -> list[str]:
    """``names`` of these, in their order; every page asks for those of the same models again."""
    chosen = {entry.key: entry.given for entry in found if entry.given}
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        groups.setdefault(entry.short, [])
        if entry.key not in chosen:
            groups[entry.short].append(entry)
    for group in groups.values():
        _name_group(group, chosen)
    return [chosen[entry.key] for entry in found]


def _name_group(group: list[Entry], chosen: dict[str, str]) -> None:
    """Add the names of models that share their objective and k to those ``chosen`` before."""
    marks = list(group[0]._marks) if group else []
    subsets = [subset for size in range(len(marks) + 1) for subset in combinations(marks, size)]
    subsets.sort(key=lambda subset: "data" not in subset)  # a name tells the data set wherever there is room
    taken = set(chosen.values())
    for longest in (LONGEST_NAME, 10 * LONGEST_NAME):
        for subset in subsets:
            if not (unnamed := [entry for entry in group if entry.key not in chosen]):
                return
            texts = {entry.key: entry._name(subset) for entry in group}
            times = Counter(texts.values())
            for entry in unnamed:
                text = texts[entry.key]
                if times[text] == 1 and text not in taken and len(text) <= longest:
                    chosen[entry.key] = text
                    taken.add(text)
    chosen |= {entry.key: f"{entry.short} · {entry.key}" for entry in group if entry.key not in chosen}


def rename(entry: Entry, name: str) -> None:
    """Give a model of your own a name, or with an empty one its usual name again.

    Raises CatalogError for a model that ships, and for a name that is too long or another model's.
    """
    paths.check_changeable()
    _check_own(entry)
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME or name != files.printable(name):
        raise CatalogError(f"a name has at most {LONGEST_NAME} printable characters: {files.printable(name)}")
    others = {key: other for key, other in names(entries()[0]).items() if key != entry.key}
    if name in others.values():
        raise CatalogError(f"another model has the name {name}")
    path = _name_file(entry.key, entry.path)
    if name:
        files.write(path, name)
    else:
        path.unlink(missing_ok=True)


def remove(entry: Entry) -> None:
    """Delete a model of your own: the file that was added, or the run with all its files.

    Raises CatalogError for a model that ships, RunError for a run that is still running.
    """
    paths.check_changeable()
    _check_own(entry)
    if entry.key.startswith("run:"):
        store.get(entry.key.removeprefix("run:")).delete()
    else:
        entry.path.unlink(missing_ok=True)
        _name_file(entry.key, entry.path).unlink(missing_ok=True)


def _check_own(entry: Entry) -> None:
    if not entry.changeable:
        whose = "ships with the program" if entry.shipped else f"is named by {environment.VARIABLE}"
        raise CatalogError(f"{entry.key} {whose}; only models of your own can be named or removed")


def _name_file(key: str, path: Path) -> Path:
    """Where the name that a model was given is kept: it goes with the run, or lies beside the added file."""
    return path.with_name("name.txt") if key.startswith("run:") else path.with_suffix(".txt")


def _given(key: str, path: Path) -> str:
    if not key.startswith(tuple(OWN)):
        return ""
    try:
        content = untrusted.read(_name_file(key, path), 4 * LONGEST_NAME)
    except (FileNotFoundError, UntrustedError):
        return ""
    return files.printable(" ".join(content.decode(errors="replace").split()), LONGEST_NAME)


def add(content: bytes, name: str) -> str:
    """Keep a checkpoint that somebody brings, and return its key. Its bytes are looked through before they are kept.

    Of ``name`` only letters, digits, ``.``, ``_`` and ``-`` remain, and never a folder; a name that is taken gets a
    number. Raises CheckpointError for what is no usable model, for one that is too large for every page, and for more
    than ``MAX_BYTES`` or ``MAX_TOTAL``.
    """
    paths.check_changeable()
    stem = clean_name(name)
    if len(content) > MAX_BYTES:
        raise CheckpointError(
            f"{printable(name)}: {len(content) / 2**20:.1f} MB; a model may have {MAX_BYTES // 2**20} MB at most"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{stem}{checkpoints.SUFFIX}"
        path.write_bytes(content)
        checkpoints.load(path)
        config = _entry(f"model:{stem}", path, path.stat().st_mtime_ns).card.model
    try:
        costs.check(config, costs.posterior(config, FEWEST_DRAWS), f"{FEWEST_DRAWS:,} draws from its posterior")
    except costs.CostError as error:
        raise CheckpointError(f"{printable(name)}: {error}") from None
    kept = list(models_dir().glob(f"*{checkpoints.SUFFIX}"))
    for path in kept:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return f"model:{path.stem}"
    if sum(path.stat().st_size for path in kept) + len(content) > MAX_TOTAL:
        raise CheckpointError(
            f"{printable(name)}: there is no room; {models_dir()} may hold {MAX_TOTAL // 2**20} MB. Remove files there"
        )
    paths.make_writable(models_dir(), paths.MODELS)
    number, path = 1, models_dir() / f"{stem}{checkpoints.SUFFIX}"
    while path.exists():
        number += 1
        path = models_dir() / f"{stem}-{number}{checkpoints.SUFFIX}"
    files.write(path, content)
    return f"model:{path.stem}"


def clean_name(name: str) -> str:
    """What is left of a file's name for a file of our own: ``../../etc/pass wd.safetensors`` → ``pass-wd``."""
    last = re.split(r"[/\\]", name)[-1].removesuffix(checkpoints.SUFFIX)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)[:60].strip(".-_") or "model"


@lru_cache(maxsize=1000)
def _entry(key: str, path: Path, written: int, given: str = "") -> Entry:
    """The model in a file that was written at that time: read once, for all pages."""
    entry = Entry(key, path, checkpoints.read_card(path), given)
    try:
        _ = entry.label, entry.trained_on, entry._marks  # need every part of the card
    except Exception as error:  # what somebody else wrote into a card raises nearly every type
        raise CheckpointError(f"{printable(path.name)}: its card cannot be read ({printable(error, 300)})") from None
    data = entry.config.dataset
    try:
        checked_shape(entry.card.model.shape, datasets.MAX_SIDE)
        with suppress(datasets.DataError):  # they are not on this machine
            check_same_shape(entry.card.model.shape, "the model", datasets.shape(data), data)
    except ValueError as error:
        raise CheckpointError(f"{printable(path.name)}: {error}") from None
    return entry


def default_pair(found: dict[str, Entry]) -> tuple[str | None, str | None]:
    """Keys of the pair to show first: the shipped one, or whatever there is."""
    keys = list(found)
    first, second = ((key if key in found else None) for key in DEFAULT_PAIR)
    vae = first or next((key for key in keys if found[key].kind == "vae"), keys[0] if keys else None)
    iwae = second or next((key for key in keys if found[key].kind == "iwae"), keys[-1] if keys else None)
    return vae, iwae
