"""Your files → images and labels: folders and ZIPs of pictures, .npy, .npz, .csv, Parquet and Hugging Face folders.

Nothing is unpickled. Whole files are read only up to ``limit`` bytes of pixels, so that a small file cannot become a
large array.
"""

import gzip
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iwae.data import array_files, arrays
from iwae.data.array_files import UNLIMITED
from iwae.data.arrays import SPLITS, ArrayError, FoundImages, Options, Part, grey, prepared
from iwae.images import decoding
from iwae.system import cores, optional
from iwae.system.files import printable

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FILES = (".npy", ".npz", ".csv", ".csv.gz", ".zip", ".parquet")
ENCRYPTED = 1  # the flag of such a member of a ZIP

Decode = Callable[[bytes, str], Image.Image]  # a file and its name → a picture; ArrayError where it is none


def decode_picture(content: bytes, name: str) -> Image.Image:
    """A picture upright, and reduced where it is large, as every upload is. Raises ArrayError."""
    try:
        return decoding.decode(content, printable(name), smallest=1)
    except decoding.PictureError as error:
        raise ArrayError(str(error).removesuffix(".")) from None
    except MemoryError:
        raise ArrayError(f"{printable(name)} needs too much memory to be decoded") from None


def read(path: Path, options: Options) -> FoundImages:
    """What lies in a file or folder of this machine. Raises ArrayError for what cannot be used."""
    if not path.exists():
        raise ArrayError(f"there is no file or folder {path}")
    if not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise ArrayError(f"{path} is neither a file nor a folder")
    try:
        if not path.is_dir():
            with path.open("rb") as stream:
                return read_file(path.name, stream, options)
        with _named(path.name):
            return _folder(path, options)
    except OSError as error:
        raise ArrayError(f"{path} cannot be read ({printable(error, 200)})") from error


def read_file(
    name: str, stream: BinaryIO, options: Options, limit: int = UNLIMITED, decode: Decode = decode_picture,
    most: int = UNLIMITED,
) -> FoundImages:  # fmt: skip
    """An open file, whose kind its name tells; ``limit`` is the most bytes that its content may have, unpacked, and
    ``most`` the largest number of pictures. Raises ArrayError."""
    suffix = next((suffix for suffix in FILES if name.lower().endswith(suffix)), "")
    with _named(name):
        if suffix == ".npy":
            return array_files.read_npy(stream, options, limit)
        if suffix == ".npz":
            return array_files.read_npz(stream, options, limit)
        if suffix in (".csv", ".csv.gz"):
            text = gzip.GzipFile(fileobj=stream) if suffix == ".csv.gz" else stream
            return array_files.read_csv(text, options, limit)
        if suffix == ".zip":
            return _zip(stream, options, limit, decode, most)
        if suffix == ".parquet":
            return _parquet({name: stream}, options, decode, most)
    raise ArrayError(f"{printable(name)}: a folder of pictures, or {', '.join(FILES)} can be read")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What a reader raises becomes an ArrayError that names the file: on hostile bytes that is nearly every type."""
    try:
        yield
    except ArrayError as error:
        raise ArrayError(f"{printable(name)}: {error}") from None
    except optional.MissingError as error:
        raise ArrayError(str(error)) from None
    except MemoryError:
        raise ArrayError(f"{printable(name)} needs more memory to be read than there is for it") from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename:  # of the disk
            raise
        raise ArrayError(f"{printable(name)} is damaged, or not what its name says ({printable(error, 200)})") from None


def splits(found: FoundImages, options: Options, title: str) -> arrays.Splits:
    """``arrays.splits`` of what ``title``, a file or folder, holds, which the ArrayError then names."""
    try:
        return arrays.splits(found, options)
    except ArrayError as error:
        raise ArrayError(f"{printable(title)}: {error}") from None


def stamp(path: Path) -> list[Any]:
    """Tells a file or folder from any other without reading it: names, sizes and times of all files."""
    paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    facts = ((each.relative_to(path).as_posix(), each.stat()) for each in paths)
    return [[name, about.st_size, about.st_mtime_ns] for name, about in facts]


# ---- pictures ---------------------------------------------------------------------------------------------------


def _folder(folder: Path, options: Options) -> FoundImages:
    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        return _hugging_face(folder, options)
    if tables := sorted(folder.rglob("*.parquet")):
        return _parquet({str(path): path for path in tables}, options)
    paths = [
        Path(place) / name for place, folders, names in os.walk(folder) for name in names
        if name.lower().endswith(PICTURES) and not name.startswith(".")
    ]  # fmt: skip
    places = {path.relative_to(folder).as_posix(): path for path in paths}
    if odd := next((name for name, path in places.items() if not path.is_file()), None):
        raise ArrayError(f"{printable(odd)} is not a file, or is a broken link")

    def one(path: Path) -> NDArray[np.uint8]:
        return picture(decode_picture(path.read_bytes(), path.name), options)

    with ThreadPoolExecutor(cores.count()) as pool:
        return pictures(places, lambda names: pool.map(one, (places[name] for name in names)))


def _zip(stream: BinaryIO, options: Options, limit: int, decode: Decode, most: int) -> FoundImages:
    with zipfile.ZipFile(stream) as archive:
        members = [
            member for member in archive.infolist()
            if member.filename.lower().endswith(PICTURES) and not _path(member.filename)[-1].startswith(".")
        ]  # fmt: skip
        if any(member.flag_bits & ENCRYPTED for member in members):
            raise ArrayError("its pictures are encrypted: unpack it with its password, and give the folder instead")
        if len(members) > most:
            raise ArrayError(f"{len(members):,} pictures; at most {most:,} are read")
        if (size := sum(member.file_size for member in members)) > limit:
            raise ArrayError(f"its pictures have {size:,} bytes; at most {limit:,} are read")

        places: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = "/".join(_path(member.filename))
            if places.setdefault(name, member) is not member:
                raise ArrayError(f"two pictures in it are called {printable(name)}")

        def content(name: str) -> bytes:  # an archive may lie about sizes; zipfile stops at the one that it gave
            return archive.read(places[name])

        return pictures(places, lambda names: (picture(decode(content(name), name), options) for name in names))


def _path(name: str) -> tuple[str, ...]:
    """A name in an archive as the folders below its own; some programs write Windows' backslashes."""
    return tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part.strip("/") not in ("", ".."))


def pictures(places: Any, load: Callable[[list[str]], Iterator[NDArray[np.uint8]]]) -> FoundImages:
    """Pictures by their names, paths with ``/``: flat, or in a folder for each class, or those in folders named train,
    valid and test. A folder around all of them does not count. Raises ArrayError."""
    names = sorted(places)
    if not names:
        raise ArrayError(f"there are no pictures in it ({', '.join(PICTURES)})")
    parts = [PurePosixPath(name).parts for name in names]
    around = 0
    while all(len(each) > around + 2 for each in parts) and len({each[around] for each in parts}) == 1:
        around += 1
    parts = [each[around:] for each in parts]
    given = all(len(each) > 1 and each[0].lower() in SPLITS for each in parts) and any(p[0] == "train" for p in parts)
    splits = [SPLITS[each[0].lower()] if given else "train" for each in parts]
    folders = ["/".join(each[given:-1]) for each in parts]
    if "" in folders and any(folders):
        flat = next(name for name, folder in zip(names, folders, strict=True) if not folder)
        raise ArrayError(f"some pictures are in folders of classes and others are not, such as {printable(flat)}")
    classes = sorted(set(folders)) if any(folders) else []
    index = {name: place for place, name in enumerate(classes)}
    found: dict[str, Part] = {}
    for split, folder, image in zip(splits, folders, load(names), strict=True):
        part = found.setdefault(split, Part([], [] if classes else None))
        part.images.append(image)  # type: ignore[union-attr]
        if part.labels is not None:
            part.labels.append(index[folder])  # type: ignore[attr-defined]
    return FoundImages(found, tuple(map(printable, classes)))


def picture(image: Image.Image, options: Options | None = None) -> NDArray[np.uint8]:
    """A picture as an image [h, w], ``prepared`` by the options; colours become grey, and what is transparent becomes
    0. Raises ArrayError for levels that have no known white."""
    options = options or Options()
    return prepared(_levels(image, options.invert)[None], options)[0]


def _levels(image: Image.Image, invert: bool) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8)
    if image.mode == "F":
        raise ArrayError("a picture of floating-point numbers has no defined white level: save it with 8 bits")
    if not image.has_transparency_data:
        return np.asarray(image.convert("L"))
    clear = image.convert("RGBA")
    alpha = np.asarray(clear.getchannel("A"), dtype=np.float64) / 255
    levels = np.asarray(clear.convert("RGB").convert("L"), dtype=np.float64)
    return np.rint(levels * alpha + (255 * (1 - alpha) if invert else 0)).astype(np.uint8)


def torch_items(items: Any, options: Options, title: str) -> Part:
    """The pairs (image, label) of a torch ``Dataset``, pictures or arrays of one image. Raises ArrayError."""
    images, labels = [], []
    for number in range(len(items)):
        item = items[number]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ArrayError(f"{title}: item {number} is not a pair of an image and a label")
        image, label = item
        if isinstance(image, Image.Image):
            images.append(picture(image, options))
        else:
            images.append(prepared(grey(image[None], title=title), options)[0])
        labels.append(int(label))
    return Part(images, labels)


# ---- Hugging Face -----------------------------------------------------------------------------------------------


def _hugging_face(folder: Path, options: Options) -> FoundImages:
    """A folder of ``save_to_disk``: Arrow files in it, or in a folder for each split."""
    optional.require("To read a Hugging Face data set", "pyarrow", extra="app")
    import pyarrow as pa

    names = SPLITS if (folder / "dataset_dict.json").is_file() else ("",)
    tables = {}
    for name in names:
        if files := sorted((folder / name).glob("*.arrow")):
            opened = [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files]
            tables[SPLITS.get(name, "train")] = pa.concat_tables(opened)
    return _tables(tables, options)


def _parquet(
    files: dict[str, Any], options: Options, decode: Decode = decode_picture, most: int = UNLIMITED
) -> FoundImages:
    """Paths or open files by their names."""
    optional.require("To read Parquet", "pyarrow", extra="app")
    import pyarrow as pa
    import pyarrow.parquet as pq

    grouped: dict[str, list[Any]] = {}
    for name, file in files.items():  # train-00000-of-00002.parquet
        split = SPLITS.get(PurePosixPath(name).stem.partition("-")[0].lower(), "train")
        grouped.setdefault(split, []).append(pq.read_table(file))
    return _tables({name: pa.concat_tables(parts) for name, parts in grouped.items()}, options, decode, most)


def _tables(
    tables: dict[str, Any], options: Options, decode: Decode = decode_picture, most: int = UNLIMITED
) -> FoundImages:
    """Tables with a column of pictures, as Hugging Face's Image feature stores them, and perhaps one of labels."""
    if "train" not in tables:
        raise ArrayError(f"there is no split called train, but {', '.join(tables) or 'none'}")
    if (rows := sum(table.num_rows for table in tables.values())) > most:
        raise ArrayError(f"{rows:,} rows; at most {most:,} are read")
    schema = tables["train"].schema
    names_of_labels: dict[str, list[Any]] = {}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names_of_labels = {name: list(features[name]["names"]) for name in schema.names if "names" in features[name]}
    columns = [field.name for field in schema if _holds_pictures(field.type)]
    if not columns:
        raise ArrayError(f"none of the columns {printable(', '.join(schema.names), 200)} holds pictures")
    labels = [*names_of_labels, *(name for name in ("label", "labels", "fine_label") if name in schema.names)]
    names = names_of_labels.get(labels[0], ()) if labels else ()
    parts = {}
    for split, table in tables.items():
        cells = table.column(columns[0]).to_pylist()
        if any(not cell or not cell.get("bytes") for cell in cells):
            raise ArrayError(f"column {columns[0]} names its pictures only; save their bytes with it")
        names_of = [str(cell.get("path") or f"row {row} of {columns[0]}") for row, cell in enumerate(cells)]
        images = [picture(decode(cell["bytes"], name), options) for cell, name in zip(cells, names_of, strict=True)]
        parts[split] = Part(images, table.column(labels[0]).to_pylist() if labels else None)
    return FoundImages(parts, tuple(map(str, names)))


def _holds_pictures(kind: Any) -> bool:
    """Whether a column has files in it: a struct with ``bytes``."""
    import pyarrow as pa

    place = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return place >= 0 and (pa.types.is_binary(kind[place].type) or pa.types.is_large_binary(kind[place].type))
