"""The available models: those that ship in ``checkpoints/``, those of your runs, and files that were added."""

import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from iwae import checkpoints
from iwae.analysis import costs
from iwae.checkpoints import Card, CheckpointError
from iwae.data.formats import PIXELS
from iwae.evaluation.stats import plus_minus
from iwae.runs import store
from iwae.system import files, paths
from iwae.system.files import printable
from iwae.system.paths import SHIPPED, models_dir
from iwae.training.config import TrainConfig

MAX_BYTES = 10 * 2**20  # of a model that is added; below server.maxUploadSize. The largest that ships has 3 MB
MAX_TOTAL = 500 * 2**20  # of all of them
FEWEST_DRAWS = 1000  # of one digit, that every model must be able to make: those of the first page
OWN = {"run:": " · own run", "model:": " · added"}  # how keys of models that do not ship begin, and what labels say
DEFAULT_PAIR = ("mnist-1layer-vae-k1", "mnist-1layer-iwae-k50")  # same architecture, data, seed and epochs


@dataclass(frozen=True)
class Entry:
    """A model that can be chosen: a stable key, its file and its card."""

    key: str  # file name without suffix; before it "model:" if it was added; or "run:" and the run's name
    path: Path
    card: Card

    @cached_property
    def config(self) -> TrainConfig:
        """How it was trained."""
        return TrainConfig.from_dict(self.card.training)

    @property
    def shipped(self) -> bool:
        """Whether it lies in ``checkpoints/``, and is neither a run nor an added model."""
        return not self.key.startswith(tuple(OWN))

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

    @property
    def nll(self) -> str:
        """``NLL 87.2 ± 0.2 nats``, or what is known instead."""
        metrics = self.card.metrics
        if metrics.get("nll") is None:
            return "not evaluated"
        return f"NLL {plus_minus(metrics['nll'], metrics['nll_se'])} nats"

    @cached_property
    def label(self) -> str:
        """``IWAE k = 50 · 1layer · mnist · NLL 87.20 ± 0.24 nats``."""
        own = next((text for prefix, text in OWN.items() if self.key.startswith(prefix)), "")
        return f"{self.short} · {self.card.model}{own} · {self.config.dataset} · {self.nll}"


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
            found[key] = _entry(key, path, path.stat().st_mtime_ns)
        except CheckpointError as error:
            refused[name] = str(error)
        except OSError as error:  # it has just gone
            refused[name] = f"{printable(name)}: {error.strerror}"
    return found, refused


def add(content: bytes, name: str) -> str:
    """Keep a checkpoint that somebody brings, and return its key. Its bytes are looked through before they are kept.

    Of ``name`` only letters, digits, ``.``, ``_`` and ``-`` remain, and never a folder; a name that is taken gets a
    number. Raises CheckpointError for what is no usable model, for one that is too large for every page, and for more
    than ``MAX_BYTES`` or ``MAX_TOTAL``.
    """
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
def _entry(key: str, path: Path, written: int) -> Entry:
    """The model in a file that was written at that time: read once, for all pages."""
    entry = Entry(key, path, checkpoints.read_card(path))
    if entry.card.model.pixels != PIXELS:
        raise CheckpointError(
            f"{printable(path.name)}: for images of {entry.card.model.pixels} pixels, not of {PIXELS}"
        )
    try:
        _ = entry.label, entry.trained_on  # need every part of the card
    except Exception as error:  # what somebody else wrote into a card raises nearly every type
        raise CheckpointError(f"{printable(path.name)}: its card cannot be read ({printable(error, 300)})") from None
    return entry


def default_pair(found: dict[str, Entry]) -> tuple[str | None, str | None]:
    """Keys of the pair to show first: the shipped one, or whatever there is."""
    keys = list(found)
    first, second = ((key if key in found else None) for key in DEFAULT_PAIR)
    vae = first or next((key for key in keys if found[key].kind == "vae"), keys[0] if keys else None)
    iwae = second or next((key for key in keys if found[key].kind == "iwae"), keys[-1] if keys else None)
    return vae, iwae
