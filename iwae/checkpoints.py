"""One model in one ``.safetensors`` file: its weights, and in the header a card that says where they come from.

Nothing is ever unpickled. A file is checked for its size, names, shapes, finiteness and version before a tensor is
used, and no file costs more memory than a few times its own size and that of the largest header.
"""

import copy
import json
import math
import stat
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iwae.model import Model, ModelConfig
from iwae.system import files, hub, reprs, untrusted
from iwae.system.files import printable

# As written here. Version 1 called Rényi's bound l-alpha; until version 2 OLD_NAMES were written, and until 3 a model's
# number of pixels instead of its shape.
FORMAT_VERSION = 4
READABLE = ("1", "2", "3", "4")
OLD_NAMES = {"passes": "epochs", "products": "precision"}  # of settings, progress and records
SUFFIX = ".safetensors"
LARGEST = 1e15  # that a number in a card may be: seconds, steps, nats
WEIGHTS = {"float32": torch.float32, "float16": torch.float16}  # as a file may hold them
ANNEALED_COUNTS = ("images", "chains", "temperatures", "samples", "simulated", "seed")  # in metrics["ais"]
ANNEALED = (
    "nll",
    "nll_draws",
    "elbo",
    "missed",
    "kl_posterior",
    "nll_mc_se",
    "scatter",
    "acceptance",
    *ANNEALED_COUNTS,
)
MAX_HEADER = 2**20  # bytes; those of our models and states have a few thousand


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint; the message names the file and the reason."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself."""

    model: ModelConfig
    training: dict[str, Any]  # the run's TrainConfig
    progress: dict[str, Any] = field(default_factory=dict)  # steps, epochs, seconds, device, weights (of WEIGHTS), ...
    metrics: dict[str, Any] = field(default_factory=dict)  # evaluation.Metrics.summary(), empty before evaluation

    __repr__ = reprs.one_line

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The progress of the models that it started from, the first one first, and its own."""
        return [*(self.progress.get("history") or []), self.progress]

    @property
    def weights(self) -> str:
        """The precision, of WEIGHTS, in which the file holds the model."""
        return self.progress.get("weights", "float32")


def save(path: Path, model: Model, card: Card) -> None:
    """Write a checkpoint, whole or not at all; in the precision that the card names.

    Raises CheckpointError for what ``load`` could not read, or not as it is: a model with modules that are not this
    package's, weights that are not finite, a card that describes another model or holds no plain values.
    """
    if (reason := model.nonstandard()) is not None:
        raise CheckpointError(
            f"{printable(path.name)}: only models that Model(config) can make again can be saved, and {reason}; keep "
            "the weights of other models by torch.save(model.state_dict(), …)"
        )
    header = asdict(card)
    _card(path, header)
    dtype = WEIGHTS[card.weights]
    tensors = {
        name: weight.detach().to("cpu", dtype, copy=True).contiguous() for name, weight in model.state_dict().items()
    }
    _check_tensors(path, tensors, card)
    save_tensors(path, tensors, "model", header)


def load(path: Path | str, device: str | torch.device = "cpu") -> tuple[Model, Card]:
    """Read a checkpoint: a file, or an address such as ``hf://user/model@revision`` on the Hugging Face Hub.

    Raises CheckpointError for a file that is not a valid checkpoint or has a newer format, and for an address whatever
    ``hub.fetch`` raises.
    """
    path = hub.fetch(path) if isinstance(path, str) and path.startswith(hub.SCHEME) else Path(path)
    tensors, header = load_tensors(path, "model")
    card = _card(path, header)
    model = _check_tensors(path, tensors, card)
    model.load_state_dict({name: weight.float() for name, weight in tensors.items()}, assign=True)
    return model.requires_grad_(True).to(device), card


def _check_tensors(path: Path, tensors: dict[str, Tensor], card: Card) -> Model:
    """A model without weights that these fit; raises CheckpointError where they do not."""
    with torch.device("meta"):  # shapes only: a header may claim sizes that do not fit into memory
        model = Model(card.model, seed=None)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        name = wrong[0]
        raise CheckpointError(
            f"{printable(path.name)}: {len(wrong)} tensors do not fit the model it describes; "
            f"'{printable(name)}' is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        )
    for name, weight in tensors.items():
        if weight.dtype != WEIGHTS[card.weights]:
            raise CheckpointError(
                f"{printable(path.name)}: {name!r} is {weight.dtype}, expected {WEIGHTS[card.weights]}"
            )
        if not weight.isfinite().all():
            raise CheckpointError(f"{printable(path.name)}: {name!r} holds values that are not finite")
    return model


def read_card(path: Path | str) -> Card:
    """The card alone, without reading the weights; raises CheckpointError as ``load`` does."""
    path = Path(path)  # from Python it is often a text
    with _open(path) as file:
        return _card(path, _header(path, file.metadata(), "model"))


def card_text(card: Card) -> str:
    """A card alone as JSON, which ``read_card_alone`` reads: what stays of a model whose weights are not kept."""
    content = {"kind": "iwae-card", "version": str(FORMAT_VERSION), "header": asdict(card)}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_card_alone(path: Path) -> Card:
    """The card in a file of ``card_text``; raises CheckpointError for any other file."""
    try:
        found = json.loads(untrusted.read(path, MAX_HEADER), parse_constant=_no_constant)
    except (untrusted.UntrustedError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path.name)}: no card can be read from it ({printable(error, 300)})"
        ) from None
    found = found if isinstance(found, dict) else {}
    return _card(path, _header(path, found | {"header": json.dumps(found.get("header"))}, "card"))


def halved(model: Model, card: Card) -> tuple[Model, Card]:
    """The model with its weights rounded to float16, and the card of a file that holds them so, in half the bytes.

    Raises ValueError where a weight is beyond what float16 can hold.
    """
    rounded = {name: weight.float() for name, weight in half_weights(model).items()}
    model = copy.deepcopy(model)
    model.load_state_dict(rounded)
    return model, replace(card, progress=card.progress | {"weights": "float16"})


def half_weights(model: Model) -> dict[str, Tensor]:
    """The state dict rounded to float16. Raises ValueError where a weight is beyond what float16 can hold."""
    rounded = {name: weight.half() for name, weight in model.state_dict().items()}
    if not all(weight.isfinite().all() for weight in rounded.values()):
        raise ValueError(f"a weight lies beyond {torch.finfo(torch.float16).max:,.0f}, the largest that float16 holds")
    return rounded


def refitted(card: Card, settings: dict[str, Any], seconds: float) -> Card:
    """The card of a model after a ``wake_sleep.Refit`` of these settings: what was measured before holds no longer."""
    progress = {name: value for name, value in card.progress.items() if name not in ("valid_bound", "weights")}
    progress["seconds"] = (progress.get("seconds") or 0) + seconds
    progress["refits"] = [*progress.get("refits", []), settings]
    return replace(card, progress=progress, metrics={})


def find(folder: Path) -> tuple[dict[str, Card], dict[str, str]]:
    """Checkpoints in a folder: (cards by file name, reasons by file name for those that cannot be used)."""
    cards, refused = {}, {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            check_place(path, folder)
            cards[path.name] = read_card(path)
        except CheckpointError as error:
            refused[path.name] = str(error)
    return cards, refused


def check_place(path: Path, folder: Path) -> None:
    """Raises CheckpointError where a link leads from the folder to a place outside it."""
    if not files.is_inside(path, folder):
        raise CheckpointError(f"{printable(path.name)}: a link to a place outside its folder, which is not followed")


def save_tensors(path: Path, tensors: dict[str, Tensor], kind: str, header: dict[str, Any]) -> None:
    """Write named tensors and a JSON header, whole or not at all; raises OSError where it cannot be written, and
    CheckpointError for a header that could not be read again."""
    try:
        written = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path.name)}: its card holds what JSON cannot ({printable(error, 300)})"
        ) from None
    metadata = {"kind": f"iwae-{kind}", "version": str(FORMAT_VERSION), "header": written}
    with files.atomic_write(path) as beside:
        try:
            save_file(tensors, beside, metadata)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(f"{path} cannot be written ({error})") from error
        _check_header(beside, printable(path.name))


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote, onto the CPU; raises CheckpointError."""
    with _open(path) as file:
        header = _header(path, file.metadata(), kind)
        return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118


def _open(path: Path):
    name = printable(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise CheckpointError(f"{name}: a folder, pipe or device, not a file")
        _check_header(path, name)
        return safe_open(path, "pt", device="cpu")
    except FileNotFoundError:
        raise CheckpointError(f"{name}: there is no such file in {path.parent}") from None
    except (SafetensorError, OSError, ValueError) as error:  # ValueError: a card that is not UTF-8, or our own
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{name}: not a safetensors file, or a damaged one ({printable(error, 300)})") from None


def _check_header(path: Path, name: str) -> None:
    """Raises CheckpointError for a header that is too large, by the first eight bytes of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size > 8 and MAX_HEADER < header <= size - 8:
        raise CheckpointError(
            f"{name}: its header has {header:,} bytes; that of a checkpoint has at most {MAX_HEADER:,}"
        )


def _header(path: Path, metadata: dict[str, str] | None, kind: str) -> dict[str, Any]:
    metadata, name = metadata or {}, printable(path.name)
    if metadata.get("kind") != f"iwae-{kind}":
        raise CheckpointError(
            f"{name}: holds '{printable(metadata.get('kind', 'something else'))}', not an iwae-{kind}"
        )
    if metadata.get("version") not in READABLE:
        raise CheckpointError(
            f"{name}: format version '{printable(metadata.get('version'))}', but this program reads "
            f"{', '.join(READABLE)}; a newer one may read it"
        )
    try:
        header = json.loads(metadata["header"], parse_constant=_no_constant)
    except (KeyError, ValueError, RecursionError) as error:  # RecursionError: nested thousands deep
        raise CheckpointError(f"{name}: its header cannot be read ({printable(error, 300)})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{name}: its header is not an object")
    progress = header.get("progress")
    history = progress.get("history") if isinstance(progress, dict) else None
    for part in (header, *(history if isinstance(history, list) else ())):
        if isinstance(part, dict) and "training" in part:
            part["training"] = upgraded(part["training"], int(metadata["version"]))
    if isinstance(progress, dict) and isinstance(history, list):
        progress["history"] = [current_names(part) for part in history]
    if progress is not None:
        header["progress"] = current_names(progress)
    return header


def current_names(values: Any) -> Any:
    """A dict whose keys may be OLD_NAMES, under the names of today; anything else as it is."""
    return {OLD_NAMES.get(name, name): value for name, value in values.items()} if isinstance(values, dict) else values


def upgraded(training: dict[str, Any], version: int) -> dict[str, Any]:
    """The settings of a run, written in this format version, under the names of today."""
    renamed = version < 2 and isinstance(training, dict) and training.get("objective") == "l-alpha"
    return current_names(training | {"objective": "renyi"} if renamed else training)


def _card(path: Path, header: dict[str, Any]) -> Card:
    try:
        parts = {name: dict(header.get(name) or {}) for name in ("training", "progress", "metrics")}
        _check_values(parts["progress"], parts["metrics"])
        return Card(ModelConfig(**_with_shape(header["model"])), **parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = printable(error, 300)
        raise CheckpointError(f"{printable(path.name)}: its card does not describe a model ({message})") from None


def _with_shape(sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a model, whose images until version 3 had a number of ``pixels``: a square, else one row."""
    if "pixels" not in sizes:
        return sizes
    sizes = dict(sizes)
    side = math.isqrt(pixels := sizes.pop("pixels"))
    return sizes | {"shape": (side, side) if side * side == pixels else (1, pixels)}


def _check_values(progress: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Raises ValueError for a value of the wrong type, so that code that shows a card need not check."""
    lists = ("active_units", "pca_active_units")
    numbers = {name: progress[name] for name in ("steps", "epochs", "seconds", "valid_bound") if name in progress}
    numbers |= {name: value for name, value in metrics.items() if name not in ("bounds", "quantiles", "ais", *lists)}
    for name in lists:
        numbers |= {f"{name}[{place}]": value for place, value in enumerate(list(metrics.get(name) or ()))}
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, int | float) and abs(value) < LARGEST):
            raise ValueError(f"{name} is {printable(value)!r}, not a number below {LARGEST:g}")
    _check_quantiles(metrics.get("quantiles"))
    _check_annealed(metrics.get("ais"))
    if not isinstance(metrics.get("bounds", {}), dict) or not isinstance(progress.get("history", []), list):
        raise ValueError("its bounds are not an object, or its history is not a list")
    if not isinstance(refits := progress.get("refits", []), list) or not all(isinstance(each, dict) for each in refits):
        raise ValueError("its refits are not a list of objects")
    if progress.get("weights", "float32") not in tuple(WEIGHTS):  # a tuple: what cannot be hashed is no name either
        raise ValueError(f"weights are {printable(progress['weights'])!r}; there are {', '.join(WEIGHTS)}")
    if not isinstance(data := progress.get("data", {}), dict) or not isinstance(data.get("sha256", ""), str):
        raise ValueError("its data are not an object with a hash")
    if not isinstance(progress.get("device", ""), str):
        raise ValueError(f"device is {printable(progress['device'])!r}, not a name")


def _check_quantiles(quantiles: Any) -> None:
    """Raises ValueError unless it is None or what ``evaluation.surprise`` keeps."""
    if quantiles is None:
        return
    if not isinstance(quantiles, dict) or not isinstance(nll := quantiles.get("nll"), list) or len(nll) < 2:
        raise ValueError("its quantiles are not an object with at least two of the NLL")
    counts = [quantiles.get(name) for name in ("images", "samples", "seed")]
    if not all(type(count) is int and 0 <= count < LARGEST for count in counts) or 0 in counts[:2]:
        raise ValueError("its quantiles lack the numbers of their images and draws, or their seed")
    if not all(type(value) in (int, float) and abs(value) < LARGEST for value in nll) or nll != sorted(nll):
        raise ValueError("its quantiles of the NLL are not numbers in ascending order")


def _check_annealed(found: Any) -> None:
    """Raises ValueError unless it is None or what ``inference.annealed_nll`` keeps: numbers, and what they are of."""
    if found is None:
        return
    if not isinstance(found, dict) or not all(
        value is None or (type(value) in (int, float) and abs(value) < LARGEST) for value in found.values()
    ):
        raise ValueError("its NLL by AIS is not an object of numbers")
    if lacking := [name for name in ANNEALED if found.get(name) is None]:
        raise ValueError(f"its NLL by AIS lacks {', '.join(lacking)}")
    counts = {name: found[name] for name in ANNEALED_COUNTS}
    for name, count in counts.items():
        if type(count) is not int or count < (name not in ("simulated", "seed")):
            raise ValueError(f"its NLL by AIS is of {printable(count)!r} {name}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a finite number")
