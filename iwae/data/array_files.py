"""Files of numbers, .npy, .npz and .csv → images and labels. Nothing is unpickled, and no more than ``limit`` bytes
are read."""

import csv
import io
import math
import re
import zipfile
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from iwae.data.arrays import SPLITS, ArrayError, FoundImages, Options, Part, grey, prepared
from iwae.system.files import printable

UNLIMITED = 2**40  # bytes
PIECE = 2**24  # bytes that are read together


def read_npy(stream: BinaryIO, options: Options, limit: int) -> FoundImages:
    """One array of images, without labels."""
    return FoundImages({"train": Part(_images(_array(stream, limit), options))})


def _array(stream: Any, limit: int) -> NDArray:
    """An array in NumPy's format, of plain numbers or texts alone, of at most ``limit`` bytes. Raises ValueError."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.names:
        kind = "Python objects" if dtype.hasobject else "records of several fields"
        raise ArrayError(f"it holds {kind}, which are never read; save an array of numbers")
    if not all(type(side) is int and side >= 0 for side in shape):  # a bool is an int, too
        raise ValueError(f"the shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise ArrayError(f"an array of {size:,} bytes; at most {limit:,} are read")
    content = _mapped(stream, size) if isinstance(stream, io.BufferedReader) and size else _content(stream, size)
    if len(content) < size:
        raise ValueError("it ends too early")
    values = np.frombuffer(content, dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _mapped(stream: io.BufferedReader, size: int) -> Any:
    """The next ``size`` bytes of a file, or what is left of it, mapped instead of read."""
    start, end = stream.tell(), stream.seek(0, io.SEEK_END)
    return np.memmap(stream, np.uint8, "r", start, min(size, end - start)) if end > start else b""


def _content(stream: BinaryIO, size: int) -> bytearray:
    """The same of any other stream, in memory, once."""
    content = bytearray()
    while len(content) < size and (piece := stream.read(min(PIECE, size - len(content)))):
        content += piece
    return content


def read_npz(stream: BinaryIO, options: Options, limit: int) -> FoundImages:
    """Arrays of images and labels by their names, of training images alone or of each split."""
    arrays = {}
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = values = _array(file, limit)
            limit -= values.nbytes
    names = next((arrays[key] for key in ("label_names", "classes") if key in arrays), ())

    def part(images: tuple[str, ...], labels: tuple[str, ...]) -> Part | None:
        found = next((arrays[key] for key in images if key in arrays), None)
        known = next((arrays[key] for key in labels if key in arrays), None)
        return None if found is None else Part(_images(found, options), known)

    parts = {"train": part(("images", "x", "data"), ("labels", "y"))}
    for word, split in SPLITS.items():
        found = part((f"{word}_images", f"x_{word}", f"{word}_x", word), (f"{word}_labels", f"y_{word}", f"{word}_y"))
        parts[split] = parts.get(split) or found
    kept = {name: part for name, part in parts.items() if part}
    if "train" not in kept:
        raise ArrayError(
            f"it has {', '.join(map(printable, arrays)) or 'no arrays'}; images are found under train, valid, test, "
            "x_train, train_images, images or x, labels under train_labels, y_train, labels or y"
        )
    return FoundImages(kept, tuple(map(str, np.ravel(names))))


def read_csv(stream: Any, options: Options, limit: int) -> FoundImages:
    """A line for each image, with its label first or without one."""
    content = stream.read(limit + 1 if limit < UNLIMITED else -1)
    if len(content) > limit:
        raise ArrayError(f"more than {limit:,} bytes of text, which is the most that is read")
    lines = content.decode("utf-8-sig").splitlines()
    lines = [line for line in lines if line.strip()]
    names = _names_of_columns(lines)
    lines = lines[1:] if names else lines
    if not lines:
        raise ArrayError("it has no lines of numbers")
    columns = len(_cells(lines[0]))
    labelled = _pixels(columns - 1, options) and not _pixels(columns, options)
    if not labelled and not _pixels(columns, options):
        if columns == 1:
            raise ArrayError(f"there is no comma in {printable(lines[0], 40)}, and commas separate the pixels")
        raise ArrayError(
            f"{columns} columns do not make a square picture, with or without a label first: give their size"
        )
    labels: list[Any] | None = None
    rows = lines
    if labelled:
        firsts, rows = zip(*map(_first_and_others, lines), strict=True)
        labels = list(map(int, firsts)) if all(re.fullmatch("-?[0-9]{1,18}", each) for each in firsts) else list(firsts)
        if names and not names[0]:  # as pandas writes its index: the number of the line
            labels = None
    try:
        values = np.loadtxt(rows, np.float32, delimiter=",", quotechar='"', comments=None, ndmin=2)
    except ValueError as error:  # with advice to whoever calls it
        raise ArrayError(printable(str(error).partition(";")[0], 200)) from None
    whole = (values == np.rint(values)).all()
    if whole and values.max() > 1:
        if values.min() < 0 or values.max() > 255:
            raise ArrayError(f"pixels from {values.min():g} to {values.max():g}; 0 to 255, or 0 to 1, are allowed")
        values = values.astype(np.uint8)
    return FoundImages({"train": Part(_images(values, options), labels)})


def _names_of_columns(lines: list[str]) -> list[str]:
    """The first line where it holds names instead of an image: texts, or numbers that count the columns, as pandas
    writes them. Empty where it is an image."""
    if not lines:
        return []
    first, *others = cells = _cells(lines[0])
    if not any(map(_is_number, others or cells)):
        return cells
    if not _is_number(first) and (len(lines) < 2 or _is_number(_first_and_others(lines[1])[0])):
        return cells if others == [str(place) for place in range(len(others))] else []
    return cells if len(cells) > 256 and cells == [str(place) for place in range(len(cells))] else []


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]))]


def _first_and_others(line: str) -> tuple[str, str]:
    """The first cell, which may be quoted, and the rest of a line."""
    if quoted := re.match(r'\s*"((?:[^"]|"")*)"\s*,', line):
        return quoted[1].replace('""', '"').strip(), line[quoted.end() :]
    first, _, others = line.partition(",")
    return first.strip(), others


def _images(values: NDArray, options: Options) -> NDArray[np.uint8]:
    """Grey levels; rows of h · w values have the size that pictures are brought to where that fits, or are square."""
    fits = options.size and values.ndim == 2 and values.shape[1] == math.prod(options.size)
    return prepared(grey(values, options.size if fits else None), options)


def _pixels(count: int, options: Options) -> bool:
    """Whether a row of so many values can be a picture."""
    return count == math.prod(options.size) if options.size else count > 1 and math.isqrt(count) ** 2 == count


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False
