"""A data set in memory: three splits of grey images with their labels, and how they become the zeros and ones of x."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Generator, Tensor

from iwae.data import arrays, own, readers
from iwae.data.arrays import AT_ONCE, MAX_SIDE, ArrayError, FoundImages, Options, Part
from iwae.data.drawn import BINARIZATION_SEED, DrawnImages, binarize, undrawn
from iwae.shapes import checked_shape, shape_text
from iwae.system import reprs


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [n, pixels], grey 0…255, row by row, and their labels int64 [n] where known. Raises ValueError for
    others."""

    images: Tensor
    labels: Tensor | None

    __repr__ = reprs.one_line

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 2:
            found = f"{self.images.dtype} of shape {list(self.images.shape)}"
            raise ValueError(f"images are uint8 [n, pixels], grey levels from 0 to 255, not {found}")
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images):,} images have as many labels, not {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, generator: Generator) -> Tensor:
        """One Bernoulli draw of every image, float32 [n, pixels]; images of grey 0 and 255 come out as they are."""
        return binarize(self.images, generator)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in its three splits. `label_names[label]` names a class; it is empty where labels have no names.

    Raises ValueError for images of another shape or of more than MAX_SIDE rows or columns, and where a fixed
    binarization has grey levels other than 0 and 255.
    """

    name: str
    title: str
    train: Split
    valid: Split
    test: Split
    stochastic: bool  # True: drawn anew in every epoch; False: binarized by its authors
    label_names: tuple[str, ...]
    shape: tuple[int, int] = (28, 28)  # of an image: rows, columns
    split_seed: int | None = None  # of splits that were made of your own images

    @classmethod
    def from_arrays(
        cls,
        train: Any,
        valid: Any = None,
        test: Any = None,
        *,
        labels: Any = None,
        label_names: Sequence[str] = (),
        name: str = "images",
        shape: tuple[int, int] | None = None,
        options: Options | None = None,
    ) -> "Dataset":
        """A data set of your own images, under its full name ``NAME@HASH8``; ``add`` keeps it.

        Args:
            train, valid, test: images, numpy or torch, uint8, bool or floats in [0, 1]: [n, h, w], [n, 1, h, w] or
                [n, h · w]; colours, three instead of the one, become grey. Or a torch ``Dataset`` of (image, label).
                What is not given of ``valid`` and ``test`` is taken out of ``train``: a tenth of it each, at least one
                image, with the same share of each label.
            labels: of ``train``, or of all that are given, in a tuple: whole numbers or texts.
            label_names: of the labels 0, 1, …
            name: 1 to 40 small letters, digits, '.', '_' and '-'.
            shape: rows and columns, which [n, h · w] needs unless they are square.
            options: the size to bring images to, their binarization, and the seed of the split.

        Raises ArrayError, a ValueError, for what cannot be used.
        """
        options = options or Options()
        given = {part: each for part, each in zip(arrays.PARTS, (train, valid, test), strict=True) if each is not None}
        if train is None:
            raise ArrayError("train: there are no images")
        columns = list(labels) if isinstance(labels, tuple) else [labels]
        if isinstance(labels, tuple) and len(labels) != len(given):
            raise ArrayError(f"labels of {len(labels)} splits for images of {len(given)}")
        columns += [None] * (len(given) - len(columns))
        parts = {}
        for (part, values), column in zip(given.items(), columns, strict=True):
            if isinstance(values, torch.utils.data.Dataset):
                label_names = label_names or tuple(getattr(values, "classes", ()))
                parts[part] = readers.torch_items(values, options, part)
            else:
                parts[part] = Part(arrays.prepared(arrays.grey(values, shape, part), options), column)
        return cls.from_found(FoundImages(parts, tuple(label_names)), options, name)

    @classmethod
    def from_found(cls, found: FoundImages, options: Options, name: str) -> "Dataset":
        """The same of what a reader has found."""
        return cls.from_splits(arrays.splits(found, options), options, name)

    @classmethod
    def from_splits(cls, made: arrays.Splits, options: Options, name: str) -> "Dataset":
        """The same of splits that were made with these options."""
        stochastic = options.threshold is None
        full = own.full_name(name, made, stochastic)
        train, valid, test = cut(made.images.whole(), made.labels, made.sizes)
        return cls(
            full,
            own.title(full, stochastic),
            train,
            valid,
            test,
            stochastic,
            made.label_names,
            made.shape,
            options.seed,
        )

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(split):,}" for split in (self.train, self.valid, self.test))
        binarization = "stochastic" if self.stochastic else "fixed"
        return f"Dataset({self.name}: {sizes} images of {shape_text(self.shape)} pixels, {binarization} binarization)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape, MAX_SIDE))
        for split in (self.train, self.valid, self.test):
            if (pixels := split.images.shape[1]) != math.prod(self.shape):
                raise ValueError(f"{self.name}: images of {pixels} pixels are not {shape_text(self.shape)}")
            if not self.stochastic and any(((p != 0) & (p != 255)).any() for p in split.images.split(AT_ONCE)):
                raise ValueError(f"{self.name}: images that are binarized already have grey levels 0 and 255 alone")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a model's card says of the data that it was trained on: the name, the shape of an image, that of each
        split [n, pixels], whether pixels are drawn anew in every epoch, and the SHA-256 of all images, split after
        split, and of the last two."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        description = {"stochastic": self.stochastic} | {
            name: list(split.images.shape) for name, split in parts.items()
        }
        content = hashlib.sha256(json.dumps(description).encode())
        for split in parts.values():
            content.update(split.images.cpu().contiguous().numpy().data)
        seed = {} if self.split_seed is None else {"split_seed": self.split_seed}
        return {"name": self.name, "sha256": content.hexdigest(), "shape": list(self.shape)} | seed | description

    @cached_property
    def pixel_mean(self) -> Tensor:
        """float32 [pixels]: the mean probability of every pixel over the training images."""
        total = torch.zeros(math.prod(self.shape), dtype=torch.int64)
        for part in self.train.images.split(AT_ONCE):  # torch makes all that it sums int64 first
            total += part.sum(0, dtype=torch.int64)
        return (total / (255 * len(self.train))).float()

    def draw(self, images: Tensor, generator: Generator, binary: bool = True) -> Tensor:
        """Some of its images uint8 as zeros and ones float32: a fresh Bernoulli draw, unless it is fixed. Not
        ``binary``: as grey levels in [0, 1], for likelihoods of these."""
        return binarize(images, generator) if binary and self.stochastic else undrawn(images, binary)

    def x(self, split: str, binary: bool) -> DrawnImages:
        """The images of "train", "valid" or "test" as a model takes them: those of ``binary(split)``, or not
        ``binary``, grey levels in [0, 1]. Only what is indexed becomes float32."""
        return DrawnImages(self.split(split).images, stochastic=self.stochastic, binary=binary)

    def binary(self, split: str) -> Tensor:
        """float32 [n, pixels] of "train", "valid" or "test", drawn from BINARIZATION_SEED: the same at every call."""
        return self.split(split).draw(Generator().manual_seed(BINARIZATION_SEED))

    def split(self, split: str) -> Split:
        """The split "train", "valid" or "test"; raises ValueError for another name."""
        if split not in ("train", "valid", "test"):
            raise ValueError(f"unknown split {split!r}; there are train, valid, test")
        return getattr(self, split)


def cut(images: np.ndarray, labels: np.ndarray | None, sizes: tuple[int, int, int]) -> tuple[Split, Split, Split]:
    """Images uint8 [n, pixels] and their labels, those of the training images first, as three splits of these sizes."""
    columns = [None] * 3 if labels is None else torch.from_numpy(labels).split(sizes)
    train, valid, test = map(Split, torch.from_numpy(images).split(sizes), columns)
    return train, valid, test
