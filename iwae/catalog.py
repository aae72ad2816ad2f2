"""The models at hand: those that ship in ``checkpoints/`` and those of one's own runs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from iwae import checkpoints, runs
from iwae.checkpoints import Card, CheckpointError
from iwae.training import TrainConfig

SHIPPED = Path(__file__).parent.parent / "checkpoints"
DEFAULT_PAIR = ("mnist-1layer-vae-k1", "mnist-1layer-iwae-k50")  # same architecture, data, seed and passes


@dataclass(frozen=True)
class Entry:
    """A model that can be chosen: a stable key, its file and its card."""

    key: str  # file name without suffix, or "run:" and the run's name
    path: Path
    card: Card

    @cached_property
    def config(self) -> TrainConfig:
        """How it was trained."""
        return TrainConfig.from_dict(self.card.training)

    @property
    def kind(self) -> str:
        """``vae`` for the plain ELBO, ``iwae`` for every objective that weighs its draws."""
        return "vae" if self.config.objective == "vae" else "iwae"

    @property
    def short(self) -> str:
        """``IWAE k = 50``."""
        return f"{self.config.bound().title} k = {self.config.k}"

    @property
    def nll(self) -> str:
        """``NLL 87.2 ± 0.2 nats``, or what is known instead."""
        metrics = self.card.metrics
        if metrics.get("nll") is None:
            return "not evaluated"
        return f"NLL {metrics['nll']:.2f} ± {metrics['nll_se'] or 0:.2f} nats"

    @property
    def label(self) -> str:
        """``IWAE k = 50 · 1layer · mnist · NLL 87.20 ± 0.24 nats``."""
        own = "" if not self.key.startswith("run:") else " · own run"
        return f"{self.short} · {self.card.model}{own} · {self.config.dataset} · {self.nll}"


def entries() -> tuple[dict[str, Entry], dict[str, str]]:
    """(models by key, own runs newest first; reasons by file for those that cannot be used)."""
    found, refused = {}, {}
    cards, broken = checkpoints.find(SHIPPED)
    shipped = [Entry(Path(name).stem, SHIPPED / name, card) for name, card in cards.items()]
    refused |= broken
    own = []
    for run in runs.list_runs():
        if not run.checkpoint.exists():
            continue
        try:
            own.append(Entry(f"run:{run.name}", run.checkpoint, checkpoints.read_card(run.checkpoint)))
        except CheckpointError as error:
            refused[run.name] = str(error)
    for entry in [*shipped, *own]:
        try:
            _ = entry.label  # needs every part of the card
            found[entry.key] = entry
        except (ValueError, TypeError, KeyError) as error:
            refused[entry.key] = f"{entry.path.name}: its card cannot be read ({error})"
    return found, refused


def default_pair(found: dict[str, Entry]) -> tuple[str | None, str | None]:
    """Keys of the pair to show first: the shipped one, or whatever there is."""
    keys = list(found)
    first, second = ((key if key in found else None) for key in DEFAULT_PAIR)
    vae = first or next((key for key in keys if found[key].kind == "vae"), keys[0] if keys else None)
    iwae = second or next((key for key in keys if found[key].kind == "iwae"), keys[-1] if keys else None)
    return vae, iwae
