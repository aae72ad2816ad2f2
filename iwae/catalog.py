"""The models at hand: those that ship in ``checkpoints/`` and those of one's own runs."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
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
    def shipped(self) -> bool:
        """Whether it lies in ``checkpoints/`` and not among one's own runs."""
        return not self.key.startswith("run:")

    @property
    def kind(self) -> str:
        """``vae`` for the plain ELBO, ``iwae`` for every objective that weighs its draws."""
        return "vae" if self.config.objective == "vae" else "iwae"

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
        return f"NLL {metrics['nll']:.2f} ± {metrics['nll_se'] or 0:.2f} nats"

    @cached_property
    def label(self) -> str:
        """``IWAE k = 50 · 1layer · mnist · NLL 87.20 ± 0.24 nats``."""
        own = "" if self.shipped else " · own run"
        return f"{self.short} · {self.card.model}{own} · {self.config.dataset} · {self.nll}"


def entries() -> tuple[dict[str, Entry], dict[str, str]]:
    """(models by key, own runs newest first; reasons by file for those that cannot be used)."""
    found, refused = {}, {}
    shipped = [(path.stem, path, path.name) for path in sorted(SHIPPED.glob(f"*{checkpoints.SUFFIX}"))]
    own = [(f"run:{run.name}", run.checkpoint, run.name) for run in runs.list_runs() if run.checkpoint.exists()]
    for key, path, name in shipped + own:
        try:
            found[key] = _entry(key, path, path.stat().st_mtime_ns)
        except CheckpointError as error:
            refused[name] = str(error)
        except OSError as error:  # it has just gone
            refused[name] = f"{path.name}: {error.strerror}"
        except (ValueError, TypeError, KeyError) as error:
            refused[key] = f"{path.name}: its card cannot be read ({error})"
    return found, refused


@lru_cache(maxsize=1000)
def _entry(key: str, path: Path, written: int) -> Entry:
    """The model in a file that was written at that time: read once, for all pages."""
    entry = Entry(key, path, checkpoints.read_card(path))
    _ = entry.label  # needs every part of the card
    return entry


def default_pair(found: dict[str, Entry]) -> tuple[str | None, str | None]:
    """Keys of the pair to show first: the shipped one, or whatever there is."""
    keys = list(found)
    first, second = ((key if key in found else None) for key in DEFAULT_PAIR)
    vae = first or next((key for key in keys if found[key].kind == "vae"), keys[0] if keys else None)
    iwae = second or next((key for key in keys if found[key].kind == "iwae"), keys[-1] if keys else None)
    return vae, iwae
