"""Columns from somebody's table, CSV or Parquet, with a value for each image: what the maps are coloured by.

The file is read in a process of its own, ``python -m iwae.data.columns``, with limits on memory and processor time.
"""

import io
import json
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from iwae.system import launcher, optional
from iwae.system.files import printable
from iwae.system.limits import limit_memory, limit_time

SUFFIXES = (".csv", ".parquet")
KEY = "index"  # the column that says which image a row is of
MAX_BYTES = 10 * 2**20
MAX_ROWS, MAX_COLUMNS, MAX_CLASSES = 200_000, 300, 20
LONGEST = 40  # characters of a name
MEGABYTES, SECONDS, PATIENCE = 400, 5.0, 30.0  # for reading a file: memory, processor time, and time on a busy machine

_free = threading.BoundedSemaphore(2)


class ColumnError(ValueError):
    """The table cannot be used; the message is one sentence for the person who sent it."""


@dataclass(frozen=True)
class ImageColumn:
    """A value for each of n images; where a row is missing, or its value, NaN or −1."""

    values: np.ndarray  # [n]: float64, or of classes their codes
    names: tuple[str, ...] | None = None  # of the classes; None: the values are numbers


def read(content: bytes, name: str, images: int) -> dict[str, ImageColumn]:
    """The columns of a file but for ``index``, each aligned with ``images`` images, rows 0 to ``images`` − 1.

    Numbers stay numbers; texts and booleans become classes, at most 20 of them. Columns of other types are left out.
    Raises ColumnError for a file that cannot be read or is too large, without a column ``index``, with rows of an
    image that is not there or is there twice, and where no column is left.
    """
    label = f"“{printable(name)}”"
    if not name.lower().endswith(SUFFIXES):
        raise ColumnError(f"{label} is neither CSV nor Parquet ({', '.join(SUFFIXES)}).")
    if len(content) > MAX_BYTES:
        raise ColumnError(f"{label} has {len(content) / 2**20:.1f} MB; at most {MAX_BYTES // 2**20} MB are read.")
    columns = _read_apart(content, name, label)
    if KEY not in columns:
        raise ColumnError(f"{label} has no column “{KEY}”, only {printable(', '.join(columns) or 'none', 200)}.")
    index = columns.pop(KEY)
    rows = _rows(index, images, label)
    found = {}
    for title, column in columns.items():
        whole = np.full(images, np.nan if column.names is None else -1, column.values.dtype)
        whole[rows] = column.values
        found[title] = ImageColumn(whole, column.names)
    if not found:
        raise ColumnError(
            f"{label} has no column beside “{KEY}” of numbers, or of at most {MAX_CLASSES} different texts."
        )
    return found


def _rows(index: ImageColumn, images: int, label: str) -> np.ndarray:
    """The images that the rows of a table are of, [rows]."""
    values = index.values
    if index.names is not None or not (np.isfinite(values) & (values == np.rint(values))).all():
        raise ColumnError(f"{label}: column “{KEY}” must hold whole numbers, the rows of the images in the test set.")
    outside = values[(values < 0) | (values >= images)]
    if len(outside):
        raise ColumnError(f"{label}: index {outside[0]:.0f} is not a test image; there are 0 to {images - 1:,}.")
    rows, counts = np.unique(values.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise ColumnError(f"{label}: index {rows[counts.argmax()]} is there {counts.max()} times; once is allowed.")
    return values.astype(np.int64)


def _read_apart(content: bytes, name: str, label: str) -> dict[str, ImageColumn]:
    """All columns as they stand in the file."""
    optional.require("a table of columns", "pyarrow", extra="app")
    command = launcher.command("iwae.data.columns", name.lower().rpartition(".")[2])
    with _free:
        try:
            done = subprocess.run(
                command, input=content, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise ColumnError(f"{label} takes more than {PATIENCE:g} s to read.") from None
    try:
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if "error" in about:
                raise ColumnError(f"{label} {about['error']}.")
            return {
                title: ImageColumn(file[f"c{place}"], None if names is None else tuple(names))
                for place, (title, names) in enumerate(about["columns"])
            }
    except (ColumnError, MemoryError):
        raise
    except Exception:  # it has ended, or its answer is not valid
        raise ColumnError(
            f"{label} cannot be read with {MEGABYTES} MB of memory and {SECONDS:g} s of a processor."
        ) from None


# ---- the process that reads ---------------------------------------------------------------------------------------


def answer(content: bytes, suffix: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the process says of a file: its columns [title, names of classes or None], or an error, and their values."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        if suffix == "csv":
            options = pyarrow.csv.ReadOptions(use_threads=False), pyarrow.csv.ConvertOptions(strings_can_be_null=True)
            table = pyarrow.csv.read_csv(io.BytesIO(content), options[0], convert_options=options[1])
        else:
            file = pq.ParquetFile(io.BytesIO(content))
            if (rows := file.metadata.num_rows) > MAX_ROWS:
                return {"error": f"has {rows:,} rows; at most {MAX_ROWS:,} are read"}, {}
            table = file.read(use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        return {"error": f"cannot be read as {suffix.upper()} ({printable(error, 120)})"}, {}
    if table.num_rows > MAX_ROWS or table.num_columns > MAX_COLUMNS:
        size = f"{table.num_rows:,} rows and {table.num_columns:,} columns"
        return {"error": f"has {size}; at most {MAX_ROWS:,} and {MAX_COLUMNS} are read"}, {}
    titles = [printable(title, LONGEST) or f"column {number}" for number, title in enumerate(table.column_names, 1)]
    if twice := [title for title, count in Counter(titles).items() if count > 1]:
        return {"error": f"has several columns called “{twice[0]}”"}, {}
    columns, arrays = [], {}
    for title, column in zip(titles, table.columns, strict=True):
        values, names = _column(column)
        if values is not None:
            arrays[f"c{len(columns)}"] = values
            columns.append((title, names))
        elif title == KEY:
            return {"error": f"must have whole numbers in its column “{KEY}”, not {printable(column.type)}"}, {}
    return {"columns": columns}, arrays


def _column(column: Any) -> tuple[np.ndarray | None, list[str] | None]:
    """Float64 numbers, or codes of classes and their names; None for what is neither."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64(), safe=False).to_numpy(), None  # the nearest; NaN where there is none
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
        return None, None
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    if not 0 < len(found) <= MAX_CLASSES:
        return None, None
    names = sorted(found)
    places = np.array([*map(names.index, found), -1])  # the last is where none is
    codes = places[encoded.indices.fill_null(-1).to_numpy().astype(np.int64)]
    return codes, [printable(name, LONGEST) for name in names]


def main(suffix: str) -> None:
    """Read a file from standard input, and write an .npz of its columns to standard output."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet  # before the limits

    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    limit_memory(MEGABYTES)
    limit_time(SECONDS)
    about, arrays = answer(content, suffix)
    written = io.BytesIO()
    np.savez(written, **({"about": np.array(json.dumps(about))} | arrays), allow_pickle=False)
    sys.stdout.buffer.write(written.getvalue())


def as_text(column: ImageColumn, rows: np.ndarray) -> list[Any]:
    """Its values of some images, for a table: names of classes, numbers, or None where there is none."""
    values = column.values[rows]
    if column.names is None:
        return [None if np.isnan(value) else value for value in values.tolist()]
    return [None if code < 0 else column.names[code] for code in values.tolist()]


if __name__ == "__main__":
    main(sys.argv[1])
