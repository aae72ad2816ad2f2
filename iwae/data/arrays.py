"""Your images: arrays in, whatever their type and size, → grey levels of one size, labels, and three splits."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iwae.shapes import checked_shape, shape_text
from iwae.system.files import printable

MAX_SIDE = 64  # rows or columns of an image, here and in the explorer
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in a grey level: ITU-R BT.601, as in Pillow
HELD_OUT = 0.1  # the share of the images that validate, and that test, where they are not given
PARTS = ("train", "valid", "test")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}  # as files say
MAX_CLASSES = 2000
AT_ONCE = 1000  # images that are converted, drawn, hashed or written together


class ArrayError(ValueError):
    """Images or labels that cannot be used; the message says what they are and what is allowed."""


@dataclass(frozen=True)
class Options:
    """How pictures become images. Raises ArrayError."""

    size: tuple[int, int] | None = None  # rows, columns to bring pictures to; None: as they are, and all alike
    threshold: float | None = None  # binarize once: a pixel is on from this share of white; None: anew in every epoch
    invert: bool = False  # white becomes 0 and black 255: for dark ink on white paper
    seed: int = 0  # of the split

    def __post_init__(self) -> None:
        if self.size is not None:
            try:
                checked_shape(self.size, MAX_SIDE)
            except ValueError as error:
                raise ArrayError(f"size: {error}") from None
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ArrayError(f"the threshold must be above 0 and at most 1, not {self.threshold}")
        if not 0 <= self.seed < 2**32:
            raise ArrayError(f"the seed of the split must lie between 0 and {2**32 - 1}, not {self.seed}")


def parse_size(text: str) -> tuple[int, int]:
    """The rows and columns in ``28x28``. Raises ArrayError for any other text."""
    found = re.fullmatch(r"\s*(\d{1,4})\s*[x×]\s*(\d{1,4})\s*", text, re.ASCII)
    if not found:
        raise ArrayError(f"a size is ROWSxCOLUMNS, such as 28x28, not {printable(text)}")
    return int(found[1]), int(found[2])


@dataclass
class Part:
    """``prepared`` images of a split before it is made: uint8 [n, h, w], or a list of [h, w] of any sizes; a label
    each, a number or a text, or None."""

    images: NDArray[np.uint8] | list[NDArray[np.uint8]]
    labels: Sequence[Any] | None = None


@dataclass
class FoundImages:
    """What somebody brings: ``train`` always, the others where they are given."""

    parts: dict[str, Part]
    label_names: tuple[str, ...] = ()  # of the labels 0, 1, …, where they have names


class Rows:
    """Images uint8 [n, h · w] that lie elsewhere, in memory or in a mapped file, in an order of their own. A few at a
    time are taken from there, so that none of them is copied whole."""

    def __init__(
        self, places: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64] | None]], threshold: float | None = None
    ):
        """
        Args:
            places: arrays [m, …], one after the other, each with the numbers of the images that are meant; None: all.
            threshold: binarize: a pixel is on from this share of white.
        """
        self.places, self.threshold = places, threshold

    def __len__(self) -> int:
        return sum(self.sizes())

    def parts(self, size: int = AT_ONCE) -> Iterator[NDArray[np.uint8]]:
        """All of them, at most ``size`` at a time, contiguous."""
        for place, count in enumerate(self.sizes()):
            for start in range(0, count, size):
                yield self._of(place, np.s_[start : start + size])

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Those with these numbers, [m, h · w]."""
        starts = np.cumsum([0, *self.sizes()])
        places = np.searchsorted(starts, numbers, "right") - 1
        firsts = numbers - starts[places]
        return np.concatenate([self._of(p, np.s_[n : n + 1]) for p, n in zip(places, firsts, strict=True)])

    def whole(self) -> NDArray[np.uint8]:
        """All of them in memory."""
        whole, start = np.empty((len(self), math.prod(self.places[0][0].shape[1:])), np.uint8), 0
        for part in self.parts():
            whole[start : start + len(part)] = part
            start += len(part)
        return whole

    def sizes(self) -> list[int]:
        """How many come from each place."""
        return [len(images if order is None else order) for images, order in self.places]

    def _of(self, place: int, some: slice) -> NDArray[np.uint8]:
        images, order = self.places[place]
        part = images[some if order is None else order[some]]
        if self.threshold is not None:
            part = np.where(part >= 255 * self.threshold, np.uint8(255), np.uint8(0))
        return np.ascontiguousarray(part).reshape(len(part), -1)


@dataclass(frozen=True, eq=False)
class Splits:
    """Images uint8 [n, h · w] of train, valid and test, one after the other, with labels int64 [n] where known."""

    images: Rows
    labels: NDArray[np.int64] | None
    sizes: tuple[int, int, int]
    shape: tuple[int, int]
    label_names: tuple[str, ...]


def grey(values: Any, shape: tuple[int, int] | None = None, title: str = "images") -> NDArray[np.uint8]:
    """Images as uint8 [n, h, w], grey levels from 0 to 255.

    Args:
        values: numpy or torch, uint8, bool or floats in [0, 1]: [n, h, w], [n, 1, h, w], [n, h, w, 1], the same with
            three colours instead of one, which become grey, or [n, h · w].
        shape: rows and columns, which [n, h · w] needs unless they are square.
        title: what a message calls them.

    Raises ArrayError for any other.
    """
    try:
        values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError) as error:  # torch's bfloat16, lists of several lengths
        raise ArrayError(f"{title}: no array of numbers ({printable(error, 100)})") from None
    kinds = "uint8, bool or floats in [0, 1] are allowed"
    found = f"{title}: an array of the shape {list(values.shape)}; [n, h, w], [n, 1, h, w] or [n, h · w] is allowed"
    if values.ndim < 2:
        raise ArrayError(found)
    if values.dtype == bool:
        values = _converted(values, lambda part: part.astype(np.uint8) * np.uint8(255))
    elif np.issubdtype(values.dtype, np.floating):
        parts = (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
        if not all(((part >= 0) & (part <= 1)).all() for part in parts):  # NaN is in no range
            if not np.isfinite(values).all():
                raise ArrayError(f"{title}: {values[~np.isfinite(values)][0]} among the values; {kinds}")
            low, high = (function(values) for function in (np.min, np.max))
            raise ArrayError(f"{title}: values from {low:g} to {high:g}; {kinds}")
        values = _converted(values, lambda part: np.rint(part * 255.0))
    elif values.dtype != np.uint8:
        raise ArrayError(f"{title}: an array of {values.dtype}; {kinds}")
    if values.ndim == 4:
        axis = next((axis for axis in (1, 3) if values.shape[axis] in (1, 3)), None)
        if axis is not None:
            values = np.moveaxis(values, axis, -1)
            coloured = values.shape[-1] == 3
            luma = np.array(LUMA)
            values = _converted(values, lambda part: np.rint(part @ luma)) if coloured else values[..., 0]
    elif values.ndim == 2:
        side = round(values.shape[1] ** 0.5)
        rows, columns = _checked(shape) if shape is not None else (side, side)
        if rows * columns != values.shape[1]:
            how = f"are not {shape_text(shape)}" if shape else "are not square: give their shape (rows, columns)"
            raise ArrayError(f"{title}: rows of {values.shape[1]} values {how}")
        values = values.reshape(-1, rows, columns)
    if values.ndim != 3 or 0 in values.shape:
        raise ArrayError(found)
    if shape is not None and values.shape[1:] != _checked(shape):
        raise ArrayError(f"{title}: images of {shape_text(values.shape[1:])} pixels are not {shape_text(shape)}")
    return values


def _checked(shape: Any) -> tuple[int, int]:
    try:
        return checked_shape(shape)
    except ValueError as error:
        raise ArrayError(str(error)) from None


def _converted(values: NDArray, function: Callable[[NDArray], NDArray]) -> NDArray[np.uint8]:
    """``function`` of each part of values [n, …] as uint8; only the parts are ever of another type."""
    if len(values) <= AT_ONCE:
        return function(values).astype(np.uint8)
    made = np.empty((len(values), *function(values[:1]).shape[1:]), np.uint8)
    for start in range(0, len(values), AT_ONCE):
        made[start : start + AT_ONCE] = function(values[start : start + AT_ONCE])
    return made


def prepared(images: NDArray[np.uint8], options: Options) -> NDArray[np.uint8]:
    """Images [n, h, w] inverted and of the size that the options want. Raises ArrayError for images that are too large
    as they are: a file of many photos is then refused at the first one, before they fill the memory."""
    if options.invert:
        images = _converted(images, lambda part: 255 - part)
    if options.size is not None and images.shape[1:] != options.size:
        size = options.size
        return _converted(images, lambda part: np.stack([fitted(image, size) for image in part]))
    if max(images.shape[1:]) > MAX_SIDE:
        found = f"larger than {MAX_SIDE}×{MAX_SIDE} ({shape_text(images.shape[1:])})"
        raise ArrayError(f"pictures {found}: give a size to bring them to, such as 28x28")
    return images


def splits(found: FoundImages, options: Options) -> Splits:
    """Pictures of one size in three splits. Those that are not given are taken out of ``train``: a tenth of it each,
    at least one image, with the same share of each label, by the seed.

    Raises ArrayError for too few images, unequal sizes without ``options.size``, and labels that do not fit.
    """
    given = [name for name in PARTS if name in found.parts]
    images = [_of_one_size(found.parts[name].images) for name in given]
    if len(sizes := {each.shape[1:] for each in images}) > 1:
        raise ArrayError(f"the splits have images of {_listed(sizes)}: give a size to bring them to")
    labels, label_names = _labels([found.parts[name] for name in given], found.label_names)
    places: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64] | None]]
    places = {name: (each, None) for name, each in zip(given, images, strict=True)}
    known = dict(zip(given, labels, strict=True))
    train_images, train_labels = images[0], labels[0]
    missing = [name for name in PARTS if name not in places]
    if len(train_images) <= len(missing):
        raise ArrayError(
            f"{len(train_images)} image{'s' * (len(train_images) > 1)}: each of train, valid and test needs one"
        )
    if missing:
        held_out = max(1, round(HELD_OUT * len(train_images)))
        random = np.random.RandomState(options.seed)
        order = _stratified(len(train_images), train_labels, random)
        chosen = [order[place * held_out :][:held_out] for place in range(len(missing))]
        for name, part in zip([*missing, "train"], [*chosen, order[len(missing) * held_out :]], strict=True):
            part = random.permutation(part)
            places[name], known[name] = (train_images, part), None if train_labels is None else train_labels[part]
    rows = Rows([places[name] for name in PARTS], options.threshold)
    columns = [column for name in PARTS if (column := known[name]) is not None]
    train, valid, test = rows.sizes()
    shape = (int(train_images.shape[1]), int(train_images.shape[2]))
    return Splits(rows, np.concatenate(columns) if columns else None, (train, valid, test), shape, label_names)


def fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [h, w] as large as fits into ``size`` with its proportions kept, in the middle; around it 0."""
    if picture.shape == size:
        return picture
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in picture.shape)
    resized = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR))
    whole = np.zeros(size, np.uint8)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    whole[top : top + rows, left : left + columns] = resized
    return whole


def _of_one_size(pictures: NDArray[np.uint8] | list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not len(pictures):
        raise ArrayError("there are no images")
    if isinstance(pictures, np.ndarray):
        return pictures
    if len(sizes := {picture.shape for picture in pictures}) > 1:
        raise ArrayError(f"pictures of different sizes ({_listed(sizes)}): give a size to bring them to, such as 28x28")
    return np.stack(pictures)


def _listed(sizes: Iterable[tuple[int, ...]]) -> str:
    ordered = [shape_text((size[0], size[1])) for size in sorted(sizes)]
    return ", ".join(ordered[:4]) + (f" and {len(ordered) - 4} more" if len(ordered) > 4 else "")


def _labels(
    parts: list[Part], label_names: tuple[str, ...]
) -> tuple[list[NDArray[np.int64]] | list[None], tuple[str, ...]]:
    """Labels of all parts as indices of names; None where no part has any."""
    if all(part.labels is None for part in parts):
        return [None] * len(parts), ()
    columns = []
    for part in parts:
        given: Any = [] if part.labels is None else part.labels
        values = _label_values(given.detach().cpu() if hasattr(given, "detach") else given)
        if values.size != len(part.images):
            count = f"{len(part.images):,} images have {values.size:,} labels"
            raise ArrayError(f"{count}: one each, in all splits or in none")
        if values.dtype.kind == "f" and (values == np.rint(values)).all():
            values = values.astype(np.int64)
        if values.dtype.kind not in "biuUS":
            raise ArrayError(f"labels are whole numbers or texts, not {values.dtype}")
        columns.append(values.reshape(-1))
    kinds, index = np.unique(np.concatenate(columns), return_inverse=True)
    if (classes := max(len(kinds), len(label_names))) > MAX_CLASSES:
        raise ArrayError(f"{classes:,} different labels; at most {MAX_CLASSES:,} are allowed")
    if label_names:
        if kinds.dtype.kind in "US" or kinds.min() < 0 or kinds.max() >= len(label_names):
            raise ArrayError(f"labels from {kinds.min()} to {kinds.max()} have no place among {len(label_names)} names")
        index = np.concatenate(columns)
    else:
        label_names = tuple(kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind) for kind in kinds)
    ends = np.cumsum([len(column) for column in columns])[:-1]
    names = tuple(printable(" ".join(str(name).split())) for name in label_names)
    return np.split(index.reshape(-1).astype(np.int64), ends), names


def _label_values(given: Any) -> NDArray:
    """Labels as an array. Raises ArrayError for what is neither a number nor a text, such as None or a list."""
    with suppress(ValueError):  # lists of several lengths
        values = np.asarray(given)
        if values.dtype != object:
            return values
    plain = [
        isinstance(each, str | np.generic) or (isinstance(each, int) and -(2**63) <= each < 2**63) for each in given
    ]
    odd = "several kinds" if all(plain) else given[plain.index(False)]
    raise ArrayError(f"labels are whole numbers of 64 bits or texts, not {printable(odd)}")


def _stratified(count: int, labels: NDArray[np.int64] | None, random: np.random.RandomState) -> NDArray[np.int64]:
    """All indices in an order whose every beginning has each label about as often as the whole."""
    order = random.permutation(count)
    if labels is None:
        return order
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    place = np.concatenate([(np.arange(each) + 0.5) / each for each in counts if each])
    return order[np.argsort(place, kind="stable")]
