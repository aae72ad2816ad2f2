"""``encode.encode_split`` on a Ray cluster, by Ray Data: bit for bit what it gives on one machine.

A row of the Ray data set is a part of ``PART`` images. A task encodes it wherever a core is free, and they come back in
order. It gets the images from an actor on the machine that drives the work, so nodes need no data and no shared disk,
and the model once for its process. What a lost node had is encoded again by the others: the draws of a part depend on
the places of its images alone.

Tasks, not a pool of actors: Ray Data starts a lost actor again when a core is free, which in a cluster that has become
smaller may be never, and waits for it.
"""

import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from iwae.analysis import encode
from iwae.analysis.encode import ImagePart, Latents, SplitImages
from iwae.data import datasets
from iwae.data.datasets import Dataset
from iwae.evaluation import sampling
from iwae.evaluation.sampling import Progress
from iwae.model import Model
from iwae.system import paths, ray_cluster

PART = 5 * sampling.IMAGES  # images of a task: seconds of work, and a divisor of encode.PART

Row = dict[str, Any]  # of a Ray data set


def encode_split(
    ray: Any,
    model: Model,
    data: Dataset,
    split: str = "test",
    *,
    images: int | None = None,
    samples: int = encode.SAMPLES,
    seed: int = 0,
    draws: int = 0,
    progress: Progress | None = None,
) -> Iterator[Latents]:
    """The parts of ``encode.encode_split``, encoded on all cores of a cluster.

    Args:
        ray: what ``ray_cluster.joined`` gives.
        model: on the CPU.
        data: a data set that ``datasets.load`` finds on this machine under its name.

    The other arguments and errors are those of ``encode.encode_split``; ClusterError where workers are lost again and
    again.
    """
    total = encode.check_split(model.config, data, split, images, samples, draws)
    actor = ray.remote(num_cpus=0, scheduling_strategy=ray_cluster.here(ray))(ImagesActor)
    source = actor.remote(data.name, paths.data_dir(), split, model.likelihood.binary, images)
    settings = {"samples": samples, "seed": seed, "draws": draws}
    firsts = [{"first": first, "size": PART} for first in range(0, total, PART)]
    rows = _rows(ray, firsts, {"source": source, "model": ray.put(model), "settings": settings})
    return _whole(ray, rows, total, progress)


class ImagesActor:
    """An actor that gives tasks on other machines the images of the data set on this one."""

    def __init__(self, name: str, folder: Path, split: str, binary: bool, images: int | None):
        data = datasets.load(name, directory=folder, download=False, progress=False, only_test=split == "test")
        self.images = SplitImages(data, split, binary, images)

    def part(self, first: int, size: int) -> ImagePart:
        return self.images.part(first, size)


def _rows(ray: Any, parts: list[Row], common: dict[str, Any]) -> Any:
    """The Ray data set of the parts, rows {"latents": Latents} in order."""
    rows = ray.data.from_items(parts, override_num_blocks=len(parts))
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
    context = rows.context
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False  # there is one of images
    context.execution_no_progress_timeout_s = -1  # a part of a million draws each takes an hour
    with warnings.catch_warnings(action="ignore"):  # ``max_retries`` goes in Ray 2.64; without, there is no end of them
        return rows.map(_encode, fn_kwargs=common, num_cpus=1, max_retries=ray_cluster.RETRIES)


def _encode(row: Row, *, source: Any, model: Any, settings: dict[str, Any]) -> Row:
    """The task: encode a part on one core. An error is a result, too: Ray Data would add advice of its own to it."""
    import ray  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    part = ray.get(source.part.remote(row["first"], row["size"]))
    try:
        return {"latents": encode.encode_part(_model(model), part, **settings)}
    except (ValueError, RuntimeError, MemoryError) as error:
        return {"latents": error}


@lru_cache(maxsize=1)
def _model(reference: Any) -> Model:
    import ray  # pyright: ignore[reportMissingImports]

    return ray.get(reference)


def _whole(ray: Any, rows: Any, total: int, progress: Progress | None) -> Iterator[Latents]:
    """Joined to the parts of ``encode.encode_split``, so that a file has the same groups of rows."""
    done, waiting = 0, []
    with ray_cluster.own_errors(ray):
        for row in rows.iter_rows():
            if isinstance(row["latents"], Exception):
                raise row["latents"]
            waiting.append(row["latents"])
            done += len(waiting[-1])
            if progress:
                progress(done, total)
            if done % encode.PART == 0 or done == total:
                yield encode.join(waiting)
                waiting = []
