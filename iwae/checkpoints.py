"""One model in one ``.safetensors`` file: its weights, and in the header a card that says where they come from.

Nothing is ever unpickled. A file is checked for its names, shapes, finiteness and version before a tensor is used.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iwae import files
from iwae.model import Model, ModelConfig

FORMAT_VERSION = 1
SUFFIX = ".safetensors"


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint; the message names the file and the reason."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself."""

    model: ModelConfig
    training: dict[str, Any]  # the run's TrainConfig
    progress: dict[str, Any] = field(default_factory=dict)  # steps, passes, seconds, device, ...
    metrics: dict[str, Any] = field(default_factory=dict)  # evaluation.Metrics.summary(), empty before evaluation


def save(path: Path, model: Model, card: Card) -> None:
    """Write a checkpoint, whole or not at all."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_tensors(path, tensors, "model", asdict(card))


def load(path: Path, device: str | torch.device = "cpu") -> tuple[Model, Card]:
    """Read a checkpoint; raises CheckpointError for a file that is none, is damaged, or is of a newer format."""
    tensors, header = load_tensors(path, "model")
    card = _card(path, header)
    with torch.device("meta"):  # shapes only: a header may claim sizes that do not fit into memory
        model = Model(card.model, seed=None)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        name = wrong[0]
        raise CheckpointError(
            f"{path.name}: {len(wrong)} tensors do not fit the model it describes; "
            f"{name!r} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        )
    for name, weight in tensors.items():
        if weight.dtype != torch.float32:
            raise CheckpointError(f"{path.name}: {name!r} is {weight.dtype}, expected torch.float32")
        if not weight.isfinite().all():
            raise CheckpointError(f"{path.name}: {name!r} holds values that are not finite")
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(True).to(device), card


def read_card(path: Path) -> Card:
    """The card alone, without reading the weights; raises CheckpointError as ``load`` does."""
    with _open(path) as file:
        return _card(path, _header(path, file.metadata(), "model"))


def update_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Put ``metrics`` into the card of an existing checkpoint; its weights stay as they are."""
    model, card = load(path)
    save(path, model, Card(card.model, card.training, card.progress, metrics))


def find(folder: Path) -> tuple[dict[str, Card], dict[str, str]]:
    """Checkpoints in a folder: (cards by file name, reasons by file name for those that cannot be used)."""
    cards, refused = {}, {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            cards[path.name] = read_card(path)
        except CheckpointError as error:
            refused[path.name] = str(error)
    return cards, refused


def save_tensors(path: Path, tensors: dict[str, Tensor], kind: str, header: dict[str, Any]) -> None:
    """Write named tensors and a JSON header, whole or not at all."""
    metadata = {"kind": f"iwae-{kind}", "version": str(FORMAT_VERSION), "header": json.dumps(header)}
    with files.whole(path) as beside:
        save_file(tensors, beside, metadata)


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote, onto the CPU; raises CheckpointError."""
    with _open(path) as file:
        header = _header(path, file.metadata(), kind)
        return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118


def _open(path: Path):
    try:
        return safe_open(path, "pt", device="cpu")
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: there is no such file in {path.parent}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name}: not a safetensors file, or a damaged one ({error})") from None


def _header(path: Path, metadata: dict[str, str] | None, kind: str) -> dict[str, Any]:
    metadata = metadata or {}
    if metadata.get("kind") != f"iwae-{kind}":
        raise CheckpointError(f"{path.name}: holds {metadata.get('kind', 'something else')!r}, not an iwae-{kind}")
    if metadata.get("version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path.name}: format version {metadata.get('version')!r}, but this program reads {FORMAT_VERSION}; "
            "a newer one may read it"
        )
    try:
        header = json.loads(metadata["header"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path.name}: its header cannot be read ({error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name}: its header is not an object")
    return header


def _card(path: Path, header: dict[str, Any]) -> Card:
    try:
        parts = {name: dict(header.get(name) or {}) for name in ("training", "progress", "metrics")}
        return Card(ModelConfig(**header["model"]), **parts)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its card does not describe a model ({error})") from None
