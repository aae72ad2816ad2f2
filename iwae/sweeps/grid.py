"""Grids of training runs, written in TOML. A cell is one run; every name is a setting of TrainConfig::

[defaults]                # of all cells; what is not named keeps TrainConfig's own default
dataset = "mnist-fixed"
epochs = 100

[grid]                    # every combination of these values
objective = ["vae", "iwae"]
k = [1, 5, 50]
seed = [0, 1, 2]

[[cell]]                  # one more cell; a list makes several of it
objective = "power-mean"
p = 2
k = 50

[[override]]              # other settings for the cells that are so
where = { objective = "iwae", k = 50 }
gradient = "dreg"
resample = 1
"""

import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from iwae.checkpoints import OLD_NAMES, current_names
from iwae.data import datasets
from iwae.model import ModelConfig
from iwae.training.config import TrainConfig

MAX_CELLS = 10_000
TABLES = ("defaults", "grid", "cell", "override")
DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class GridError(ValueError):
    """A grid that cannot be; the message names the cell and the value."""


@dataclass(frozen=True)
class GridCell:
    """One run of a grid."""

    config: TrainConfig

    @property
    def name(self) -> str:
        """What a reader looks for, and a hash of the settings that are not TrainConfig's defaults. It never changes."""
        model = re.sub(r"[^\w.]+", "_", str(ModelConfig.parse(self.config.model)))[:40]
        defaults = asdict(TrainConfig()) | {"dataset": "digits"}  # the default when the first names were given
        first_names = {new: old for old, new in OLD_NAMES.items()}
        own = {
            first_names.get(name, name): value for name, value in asdict(self.config).items() if value != defaults[name]
        }
        if self.config.objective == "l-alpha":
            own["version"] = 2  # before, Rényi's bound had this name: its runs are no runs of this cell
        digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
        c = self.config
        return f"{c.dataset}-{c.objective}-k{c.k}-{model}-s{c.seed}-{digest}"


def load(path: Path) -> list[GridCell]:
    """The cells of a TOML file, in its order. Raises GridError, or OSError when it cannot be read."""
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GridError(f"{path} is not TOML: {error}") from None
    except GridError as error:
        raise GridError(f"{path}: {error}") from None


def parse(tables: dict[str, Any]) -> list[GridCell]:
    """The cells of the module's four tables. Raises GridError."""
    if unknown := sorted(set(tables) - set(TABLES)):
        raise GridError(f"unknown table {unknown[0]!r}; there are {', '.join(TABLES)}")
    defaults, grid = (_table(name, tables.get(name, {})) for name in ("defaults", "grid"))
    defaults = {name: _typed("defaults", name, value) for name, value in defaults.items()}
    overrides = [_Override.from_table(*item) for item in _numbered("override", tables)]
    found: dict[str, GridCell] = {}
    for own in itertools.chain(
        _combinations("grid", grid) if grid else (),
        *(_combinations(title, table) for title, table in _numbered("cell", tables)),
    ):
        settings = defaults | own
        for override in overrides:
            settings |= override.settings_for(settings)
        label = "cell " + ", ".join(f"{name} = {value}" for name, value in own.items())
        try:
            cell = GridCell(TrainConfig.from_dict(settings))
        except ValueError as error:
            raise GridError(f"{label}: {error}") from None
        if cell.name in found:
            raise GridError(f"{label}: there are two cells with these settings")
        if cell.config.start and not Path(cell.config.start).is_file():
            raise GridError(f"{label}: start: there is no file {cell.config.start}")
        found[cell.name] = cell
    if not found:
        raise GridError("it has no cells: a table [grid], or [[cell]], lists them")
    if idle := [override.title for override in overrides if not override.used]:
        raise GridError(f"{idle[0]} fits no cell")
    return list(found.values())


@dataclass
class _Override:
    title: str
    where: dict[str, Any]
    settings: dict[str, Any]
    used: bool = False

    @classmethod
    def from_table(cls, title: str, table: dict[str, Any]) -> "_Override":
        table = dict(table)
        where = _table(f"{title}: where", table.pop("where", {}))
        where, settings = ({n: _typed(title, n, v) for n, v in part.items()} for part in (where, table))
        return cls(title, where, settings)

    def settings_for(self, settings: dict[str, Any]) -> dict[str, Any]:
        fits = all(settings.get(name, DEFAULTS[name]) == value for name, value in self.where.items())
        self.used |= fits
        return self.settings if fits else {}


def _combinations(title: str, table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of one value for each name; a single value is a list of one."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in table.items()}
    for name, values in lists.items():
        if not values:
            raise GridError(f"{title}: {name} has no values")
    if (size := math.prod(map(len, lists.values()))) > MAX_CELLS:
        raise GridError(f"{title}: {size:,} cells are too many; there may be {MAX_CELLS:,}")
    lists = {name: [_typed(title, name, value) for value in values] for name, values in lists.items()}
    return (dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))


def _typed(title: str, name: str, value: Any) -> Any:
    """The value in the setting's own type; TrainConfig judges the rest."""
    if name not in DEFAULTS:
        raise GridError(f"{title}: unknown setting {name!r}; there are {', '.join(DEFAULTS)}")
    hint = get_type_hints(TrainConfig)[name]
    kind = next(kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise GridError(f"{title}: {name} must be {KINDS[kind]}, not {value!r}")
    if name == "dataset":
        try:
            return datasets.added(value)
        except (ValueError, OSError) as error:
            raise GridError(f"{title}: dataset: {error}") from None
    return value


def _numbered(name: str, tables: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(title, table) of each of the tables ``[[name]]``."""
    found = tables.get(name, [])
    if not isinstance(found, list):
        raise GridError(f"{name} must be written as [[{name}]]")
    return [(f"{name} {i}", _table(f"{name} {i}", table)) for i, table in enumerate(found, start=1)]


def _table(title: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GridError(f"{title} must be a table, not {value!r}")
    for old, new in OLD_NAMES.items():
        if old in value and new in value:
            raise GridError(f"{title}: {old} is the old name of {new}; give one of them")
    return current_names(value)
