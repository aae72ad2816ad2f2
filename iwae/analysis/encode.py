"""The latents of many images, a row each: the posterior of every layer, log p̂(x), and how far that can be trusted.

In the first layer μ and σ are those of the Gaussian q(h₁|x); above it they are the mean and standard deviation of each
unit (``latent.encode``). log p̂(x), the effective sample size and Pareto k̂ come from the same draws as those of
``evaluate``, so they are equal to it for the same images, number of draws and seed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from iwae.analysis import latent, umap_maps
from iwae.data.datasets import Dataset
from iwae.evaluation import sampling
from iwae.evaluation.sampling import Block, Progress
from iwae.evaluation.stats import RunningWeights
from iwae.inference import pareto
from iwae.kernels import threads
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel, ModelConfig, Sample
from iwae.system import optional, reprs

SAMPLES = 1000  # draws behind log p̂(x)
PART = 50 * sampling.IMAGES  # images of ``encode_split`` in memory at once
MAPS = ("pca", "umap")
MAP_IMAGES = 10_000  # that UMAP lays out; the others are placed among them
FEWEST = {"pca": 2, "umap": umap_maps.UmapSettings.neighbours + 1}  # images on a map
MAX_DRAWS = 1000  # that are kept of an image, a column for each unit of each
LARGEST = 2 * 2**30  # bytes of the draws that are in memory at once, which joining parts takes twice


@dataclass(frozen=True)
class Latents:
    """The latents of n images. μ, σ and draws are float32, as the model computes them, the others float64; nats."""

    index: np.ndarray  # [n], the row of each image in its split
    labels: np.ndarray | None  # [n]
    label_names: tuple[str, ...]  # of the labels 0, 1, …, where they have names
    mean: tuple[np.ndarray, ...]  # of each layer, from the pixels upwards: [n, latent[l]]
    std: tuple[np.ndarray, ...]
    log_p: np.ndarray  # [n], log p̂(x) = L_samples
    ess: np.ndarray  # [n], from 1 to ``samples``
    k_hat: np.ndarray  # [n]; NaN for fewer than 21 samples
    draws: tuple[np.ndarray, ...]  # the first draws of q(h|x) of each layer: [n, draws, latent[l]]
    log_w: np.ndarray  # [n, draws], log p(x, h) − log q(h|x) of these
    samples: int
    seed: int
    places: np.ndarray | None = None  # [n, 2], on a map

    __repr__ = reprs.one_line

    def __len__(self) -> int:
        return len(self.index)

    def columns(self) -> dict[str, np.ndarray]:
        """All of it as named columns [n], for a table: ``h1_mean_0`` is μ of unit 0 in the first layer, ``h1_std_0``
        its σ, and ``draw0_h1_0`` its value in the first draw. Units, draws and rows count from 0."""
        found = {"index": self.index}
        if self.labels is not None:
            found["label"] = self.labels
            if self.label_names:
                found["class"] = np.array(self.label_names, dtype=object)[self.labels]
        found |= {"log_p": self.log_p, "ess": self.ess, "k_hat": self.k_hat}
        if self.places is not None:
            found |= {"map_x": self.places[:, 0], "map_y": self.places[:, 1]}
        for layer, (mean, std) in enumerate(zip(self.mean, self.std, strict=True), 1):
            found |= {f"h{layer}_mean_{unit}": column for unit, column in enumerate(mean.T)}
            found |= {f"h{layer}_std_{unit}": column for unit, column in enumerate(std.T)}
        for draw in range(self.log_w.shape[1]):
            found[f"draw{draw}_log_w"] = self.log_w[:, draw]
            for layer, h in enumerate(self.draws, 1):
                found |= {f"draw{draw}_h{layer}_{unit}": column for unit, column in enumerate(h[:, draw].T)}
        return found


@dataclass(frozen=True)
class ImagePart:
    """Consecutive images of those that are encoded."""

    first: int  # the place of x[0] among them, a multiple of sampling.IMAGES
    x: Tensor  # [size, pixels]
    index: np.ndarray  # [size], the row of each in its split
    labels: np.ndarray | None  # [size]
    label_names: tuple[str, ...]

    __repr__ = reprs.one_line


def encode(
    model: LatentModel,
    x: Tensor,
    *,
    index: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    label_names: Sequence[str] = (),
    samples: int = SAMPLES,
    seed: int = 0,
    draws: int = 0,
    progress: Progress | None = None,
) -> Latents:
    """The latents of images x [n, pixels] (what x may be: ``Model.check_images``).

    Args:
        index, labels: the row and the label of each image, [n]; by default 0 … n − 1, and none.
        label_names: of the labels 0, 1, …
        samples: draws from q(h|x) behind log p̂(x), the effective sample size and k̂ of each image.
        draws: how many of these are kept, the first ones.

    Raises ValueError for images that the model does not take and numbers out of range, NonFiniteError where a result
    is not finite.
    """
    _check(samples, draws)
    check_draws(model.config, len(x), draws)
    index = np.arange(len(x)) if index is None else np.asarray(index)
    part = ImagePart(0, x, index, labels, tuple(label_names))
    return encode_part(model, part, samples=samples, seed=seed, draws=draws, progress=progress)


def encode_split(
    model: LatentModel,
    data: Dataset,
    split: str = "test",
    *,
    images: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    draws: int = 0,
    progress: Progress | None = None,
) -> Iterator[Latents]:
    """The latents of a split of a data set, "train", "valid" or "test", ``PART`` images at a time, so that memory
    hardly grows with their number (``DrawnImages``). ``join`` makes them one, equal to ``encode`` of all of them.

    Args:
        images: how many of them; those that ``latent.subset`` draws, as on the maps of the explorer. By default all.

    The other arguments and errors are those of ``encode``.
    """
    total = check_split(model.config, data, split, images, samples, draws)

    def parts() -> Iterator[Latents]:
        found = SplitImages(data, split, model.likelihood.binary, images)
        for first in range(0, total, PART):
            counted = progress and _shifted(progress, first, total)
            part = found.part(first, PART)
            yield encode_part(model, part, samples=samples, seed=seed, draws=draws, progress=counted)

    return parts()  # a generator: what is wrong with the arguments is said at once, not with the first part


class SplitImages:
    """The images that ``encode_split`` encodes, any part of them; ``binary`` as in ``Dataset.x``."""

    def __init__(self, data: Dataset, split: str, binary: bool, images: int | None):
        known = data.split(split).labels
        self.numbers, self.x = rows(data, split, images), data.x(split, binary)
        self.labels, self.label_names = None if known is None else known.numpy(), data.label_names

    def part(self, first: int, size: int) -> ImagePart:
        """``size`` of them, or those that are left, from the one at the place ``first``, a multiple of
        ``sampling.IMAGES``."""
        index = self.numbers[first : first + size]
        labels = None if self.labels is None else self.labels[index]
        return ImagePart(first, self.x[index], index, labels, self.label_names)


def check_split(config: ModelConfig, data: Dataset, split: str, images: int | None, samples: int, draws: int) -> int:
    """How many images ``encode_split`` would encode. Raises ValueError as it does."""
    _check(samples, draws)
    total = len(rows(data, split, images))
    check_draws(config, min(PART, total), draws)
    return total


def rows(data: Dataset, split: str, images: int | None = None) -> np.ndarray:
    """The numbers of the images that ``encode_split`` encodes, ascending. Raises ValueError for more or fewer images
    than there are."""
    total = len(data.split(split))
    if images is None:
        return np.arange(total)
    if not 1 <= images <= total:
        raise ValueError(f"images must lie between 1 and {total:,}, all {split} images of {data.name}, not {images:,}")
    return latent.subset(total, images)


def join(parts: Iterable[Latents]) -> Latents:
    """Consecutive parts as one."""
    parts = list(parts)

    def together(arrays: list[np.ndarray]) -> np.ndarray | None:
        return None if arrays[0] is None else np.concatenate(arrays)

    def by_layer(name: str) -> tuple[np.ndarray, ...]:
        return tuple(map(np.concatenate, zip(*(getattr(part, name) for part in parts), strict=True)))

    plain = ("index", "labels", "log_p", "ess", "k_hat", "log_w", "places")
    whole = {name: together([getattr(part, name) for part in parts]) for name in plain}
    return replace(parts[0], **whole, **{name: by_layer(name) for name in ("mean", "std", "draws")})


@dataclass(frozen=True)
class SampleMap:
    """A map of the means of h₁ of some images, on which others are placed."""

    index: np.ndarray  # [n], the rows of these images in their split, ascending
    points: np.ndarray  # [n, latent], their means
    plane: latent.LinearProjection  # of largest variance
    places: np.ndarray | None  # [n, 2], by UMAP; None: the plane is the map

    __repr__ = reprs.one_line

    def place(self, latents: Latents) -> Latents:
        """The same images with ``places``: on the plane; or on UMAP's map, their own if it was made of them, else among
        their neighbours there (``latent.place_on_map``)."""
        points = latents.mean[0].astype(np.float64)
        if self.places is None:
            return replace(latents, places=self.plane.project(points))
        own, places = np.isin(latents.index, self.index), np.empty((len(points), 2))
        places[own] = self.places[np.searchsorted(self.index, latents.index[own])]
        if not own.all():
            places[~own] = latent.place_on_map(points[~own], self.points, self.places)
        return replace(latents, places=places)


def sample_map(
    index: np.ndarray, means: np.ndarray, kind: str,
    report: Callable[[str, float], None] = lambda message, share: None,
) -> SampleMap:  # fmt: skip
    """The plane of largest variance of means [n, latent] ("pca"), or a map of them by UMAP ("umap") that begins there,
    with the explorer's settings. ``report(message, share done)``. Raises ValueError for too few images and another
    kind, MissingError without UMAP."""
    check_map(kind, len(means))
    points = means.astype(np.float64)
    plane = latent.pca(points)
    if kind == "pca":
        return SampleMap(index, points, plane, None)
    optional.require("a map by UMAP", "umap", extra="umap")
    return SampleMap(
        index, points, plane, umap_maps.umap(points, plane.project(points), umap_maps.UmapSettings(), report)
    )


def map_of_split(
    model: LatentModel, data: Dataset, split: str, kind: str, images: int | None = None,
    report: Callable[[str, float], None] = lambda message, share: None,
) -> SampleMap:  # fmt: skip
    """``sample_map`` for the images that ``encode_split`` encodes: of all, or of ``MAP_IMAGES`` of them.
    Raises as both."""
    numbers = rows(data, split, images)
    check_map(kind, len(numbers))
    chosen, x = numbers[latent.subset(len(numbers), MAP_IMAGES)], data.x(split, model.likelihood.binary)
    blocks = (x[chosen[start : start + sampling.IMAGES]] for start in range(0, len(chosen), sampling.IMAGES))
    with threads.single_threaded():  # as in ``encode_part``, so that the means are equal
        parts = [latent.encode(model, block) for block in blocks]
    return sample_map(chosen, np.concatenate([part.mean.astype(np.float32) for part in parts]), kind, report)


def check_map(kind: str, images: int) -> None:
    """Raise ValueError for an unknown map, and for too few images on it."""
    if kind not in MAPS:
        raise ValueError(f"unknown map {kind!r}; there are {', '.join(MAPS)}")
    if images < FEWEST[kind]:
        raise ValueError(f"map {kind} needs at least {FEWEST[kind]} images, not {images}")


def check_draws(config: ModelConfig, images: int, draws: int) -> None:
    """Raise ValueError for draws that so many images, which are in memory at once, have no room for."""
    if draws > MAX_DRAWS:
        raise ValueError(f"draws must not be above {MAX_DRAWS:,}, not {draws:,}")
    if (size := 4 * images * draws * (1 + sum(config.latent))) > LARGEST:
        raise ValueError(
            f"draws: {draws:,} of each of {images:,} images are {size / 2**30:.1f} GB of memory; at most "
            f"{LARGEST / 2**30:g} GB are allowed"
        )


def _check(samples: int, draws: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if not 0 <= draws <= samples:
        raise ValueError(f"draws must lie between 0 and the {samples} samples, not {draws}")


def _shifted(progress: Progress, first: int, total: int) -> Progress:
    return lambda done, _: progress(first + done, total)


@torch.no_grad()
def encode_part(
    model: LatentModel, part: ImagePart, *, samples: int, seed: int, draws: int, progress: Progress | None = None
) -> Latents:
    """The latents of a part, whose arguments have been checked: bit for bit those that it has in the whole, on any
    number of threads, since each block of ``sampling.IMAGES`` images goes by itself through one thread."""

    def measure(block: Block, stream: Iterator[Sample]) -> dict[str, list[Tensor]]:
        return _measure(model, block, stream, samples, draws)

    x = model.check_images(part.x)
    with threads.single_threaded():
        blocks = sampling.map_draws(measure, model, x, samples, seed=seed, progress=progress, first=part.first)
    found = {
        name: [torch.cat(layer).cpu().numpy() for layer in zip(*(block[name] for block in blocks), strict=True)]
        for name in blocks[0]
    }
    check_finite(torch.from_numpy(found["log_p"][0]), "log p̂(x)")
    return Latents(
        index=part.index,
        labels=part.labels,
        label_names=part.label_names,
        **{name: found[name][0].astype(np.float64) for name in ("log_p", "ess", "k_hat", "log_w")},
        mean=tuple(layer.astype(np.float32) for layer in found["mean"]),
        std=tuple(layer.astype(np.float32) for layer in found["std"]),
        draws=tuple(layer.astype(np.float32) for layer in found["draws"]),
        samples=samples,
        seed=seed,
    )


def _measure(
    model: LatentModel, block: Block, stream: Iterator[Sample], samples: int, draws: int
) -> dict[str, list[Tensor]]:
    """Of one block of images: lists of tensors [images, …], of which means, standard deviations and draws have one a
    layer."""
    encoded = [latent.encode(model, block.x, layer) for layer in range(1, len(model.encoder) + 1)]
    weights = RunningWeights(len(block.x), block.x.device)
    tail = pareto.tail_length(samples) + 1  # log-weights that k̂ is of, the largest; all of them would not be bounded
    largest, kept, missing = block.x.new_empty(0, len(block.x)), [], draws
    for sample in stream:
        log_w = sample.log_w
        weights.add(log_w)
        largest = torch.cat([largest, log_w])
        largest = largest.topk(min(tail, len(largest)), 0).values
        if missing or not kept:  # with draws = 0 one part of no draws, for its shapes
            kept.append((log_w[:missing], *(h[:missing] for h in sample.h)))
            missing -= len(kept[-1][0])
    columns = largest.double().flip(0).T.cpu().numpy()
    known = samples >= pareto.FEWEST_SAMPLES
    k_hat = [pareto.k_hat_of_largest(column) if known else np.nan for column in columns]
    log_w, *h = (torch.cat(parts).movedim(0, 1) for parts in zip(*kept, strict=True))
    one = {
        "log_p": weights.log_mean(),
        "ess": weights.ess(),
        "k_hat": torch.tensor(k_hat, dtype=torch.float64),
        "log_w": log_w,
    }
    moments = {name: [torch.from_numpy(getattr(layer, name)) for layer in encoded] for name in ("mean", "std")}
    return {name: [values] for name, values in one.items()} | moments | {"draws": h}
